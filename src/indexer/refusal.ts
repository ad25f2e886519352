/**
 * What a failure of the database says of the statement.
 * - `refused`: its rows cannot be stored, whoever tries how often.
 * - `passing`: the same may succeed later.
 * - `lasting`: neither, such as a table that is not there.
 */
export type Failure = 'refused' | 'passing' | 'lasting'

/** @see https://www.postgresql.org/docs/18/errcodes-appendix.html */
export function failureKind(error: unknown): Failure {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (typeof code !== 'string') return 'lasting'
  if (refusedClasses.has(code.slice(0, 2)) && code.length === sqlStateLength) return 'refused'
  if (passingClasses.has(code.slice(0, 2)) && code.length === sqlStateLength) return 'passing'
  return passingCodes.has(code) ? 'passing' : 'lasting'
}

/** Without the details that come with it: they may quote what was refused. */
export function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
  return `refused by the database: ${code}`
}

const sqlStateLength = 5
/** Bad data, broken constraints, and more than a limit of the program allows. */
const refusedClasses: ReadonlySet<string> = new Set(['22', '23', '54'])
/** Lost connections, conflicts, lack of resources, stops by the operator, and faults of disks. */
const passingClasses: ReadonlySet<string> = new Set(['08', '25', '40', '53', '55', '57', '58'])
/** Of the driver and of sockets. */
const passingCodes: ReadonlySet<string> = new Set([
  'CONNECTION_CLOSED',
  'CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
])
