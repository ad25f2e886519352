import { randomBytes } from 'node:crypto'
import { chownSync, existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ignoreAbsent, isAbsent } from '../lib/file-error.ts'
import { emptyFolder, makeFolder, syncFolder, writeDurably } from '../lib/files.ts'
import { isRoot, type PostgresPrograms, serverUser, type User } from './postgres-programs.ts'
import { ServerFailed } from './server-failed.ts'

/** What a server works on. */
export interface PostgresData {
  readonly folder: string
  /** Of the user `postgres`, who may do everything. */
  readonly password: string
  /** As whom the server runs. */
  readonly user: User
}

export interface DataOptions {
  readonly programs: PostgresPrograms
  /** `unsynced` for what need not outlive a power cut. */
  readonly durability: Durability
  readonly signal?: AbortSignal
}

export type Durability = 'synced' | 'unsynced'

/**
 * The data in a folder that is ours alone, made at the first call:
 *
 *     password    of the superuser
 *     data        of the server
 *     data.new    the same, while it is being made
 *
 * The password is there before the data, and the data have their name once they are whole: whoever is
 * killed on the way leaves nothing that is taken for data.
 *
 * @throws ServerFailed where something else is there than this program can work with, or the reason
 * of an aborted `signal`
 */
export async function prepareData(folder: string, options: DataOptions): Promise<PostgresData> {
  makeFolder(folder)
  const data = join(folder, 'data')
  const user = serverUser(data)
  if (isMissing(data)) await makeData(folder, { ...options, user })
  checkVersion(folder, options.programs.major)
  const password = readPassword(folder)
  if (password !== undefined) return { folder: data, password, user }
  throw new ServerFailed(
    `${join(folder, passwordName)} is gone, the password of the PostgreSQL beside it: bring it ` +
      `back from a backup, or ${startAnew(folder)}`,
  )
}

/** For operators: nothing of an index is lost that services do not have. */
export function startAnew(folder: string): string {
  return `remove ${folder}, and the index is filled anew from its services`
}

async function makeData(
  folder: string,
  { programs, durability, user, signal }: DataOptions & { readonly user: User },
): Promise<void> {
  const [data, made] = [join(folder, 'data'), join(folder, 'data.new')]
  const password = readPassword(folder) ?? randomBytes(32).toString('hex')
  writeDurably(join(folder, passwordName), password, 0o600)
  emptyFolder(made)
  // Read by the server's user, who may not read the other one.
  const copy = join(folder, 'password.new')
  rmSync(copy, { force: true })
  writeDurably(copy, password, 0o600)
  if (isRoot()) for (const path of [made, copy]) chownSync(path, user.uid, user.gid)
  try {
    const initdb = programs.run({
      program: 'initdb',
      user,
      signal,
      given: [made, copy],
      args: (made, copy) => [
        `--pgdata=${made}`,
        `--pwfile=${copy}`,
        '--username=postgres',
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale=C',
        '--no-instructions',
        ...(durability === 'unsynced' ? ['--no-sync'] : []),
      ],
    })
    const said = await new Response(initdb.stderr).text()
    const code = await initdb.exited
    signal?.throwIfAborted()
    if (code !== 0) {
      throw new ServerFailed(
        `the data of PostgreSQL could not be made in ${folder}, initdb says ${said.trim()}: ` +
          'see that there is room and the folder may be written to, and start again',
      )
    }
  } finally {
    rmSync(copy, { force: true })
  }
  renameSync(made, data)
  syncFolder(folder)
}

/** An empty folder is one that an operator has made. */
function isMissing(data: string): boolean {
  try {
    return readdirSync(data).length === 0
  } catch (error) {
    ignoreAbsent(error)
    return true
  }
}

function checkVersion(folder: string, major: number): void {
  const data = join(folder, 'data')
  const file = join(data, 'PG_VERSION')
  if (!existsSync(file)) {
    throw new ServerFailed(`${data} is no data of a PostgreSQL: move it elsewhere, and start again`)
  }
  const found = readFileSync(file, 'utf8').trim()
  if (found === String(major)) return
  throw new ServerFailed(
    `${data} is of PostgreSQL ${found}, and this program has PostgreSQL ${major}: start the ` +
      `version of Stratos that wrote it, or ${startAnew(folder)}`,
  )
}

function readPassword(folder: string): string | undefined {
  try {
    const password = readFileSync(join(folder, passwordName), 'utf8').trim()
    return password === '' ? undefined : password
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

const passwordName = 'password'
