import { isDid } from './atproto/syntax.ts'
import { boundaryCharsMax, qualifyBoundary } from './service/boundary.ts'

/** One environment variable: how it is read, what stands in for it, and what to tell people. */
interface Variable<Value> {
  readonly name: string
  readonly fallback: Value
  /** How the fallback is shown, where the value itself says too little. */
  readonly shown?: string
  readonly text: string
  readonly example: string
  /** @throws Error whose message says what is wrong */
  read(text: string): Value
}

/** Every setting: the one place for names, defaults, units and meanings. */
const variables = {
  host: variable('STRATOS_HOST', '127.0.0.1', readText, {
    text: 'Address to listen on.',
    example: '0.0.0.0',
  }),
  port: variable('STRATOS_PORT', 3100, between(1, 65_535), {
    text: 'Port to listen on.',
    example: '3100',
  }),
  publicUrl: variable('STRATOS_PUBLIC_URL', '', readOrigin, {
    text: 'Where the world reaches this service: https, without a path. Needed beyond loopback.',
    shown: 'http://localhost:{port}',
    example: 'https://stratos.example.com',
  }),
  serviceDid: variable('STRATOS_SERVICE_DID', '', readServiceDid, {
    text: 'DID of this service.',
    shown: 'did:web of the public URL',
    example: 'did:web:stratos.example.com',
  }),
  fragment: variable('STRATOS_SERVICE_FRAGMENT', 'atproto_pns', readFragment, {
    text: 'Fragment of the service entry in did.json that PDSes and stubs name.',
    example: 'atproto_pns',
  }),
  dataDir: variable('STRATOS_DATA_DIR', './data', readText, {
    text: 'Folder of all databases and keys.',
    example: '/var/lib/stratos',
  }),
  domains: variable('STRATOS_ALLOWED_DOMAINS', ['general'], listOf(readName), {
    text: 'Boundaries of this service, bare names, separated by commas.',
    example: 'cycling,climbing',
  }),
  autoEnroll: variable('STRATOS_AUTO_ENROLL_DOMAINS', null, listOf(readName), {
    text: 'Boundaries that new people get; set but empty means none.',
    shown: 'all boundaries',
    example: 'cycling',
  }),
  enrollmentMode: variable('STRATOS_ENROLLMENT_MODE', 'allowlist', oneOf('open', 'allowlist'), {
    text: 'Who may enroll: everybody (open), or who is on a list (allowlist).',
    example: 'open',
  }),
  allowedDids: variable('STRATOS_ALLOWED_DIDS', [], listOf(readDid), {
    text: 'DIDs that may enroll in allowlist mode, separated by commas.',
    example: 'did:plc:ewvi7nxzyoun6zhxrhs64oiz',
  }),
  allowedPds: variable('STRATOS_ALLOWED_PDS_ENDPOINTS', [], listOf(readOrigin), {
    text: 'PDSes whose accounts may enroll in allowlist mode, separated by commas.',
    example: 'https://pds.example.com',
  }),
  redirectOrigins: variable('STRATOS_ALLOWED_REDIRECT_ORIGINS', [], listOf(readOrigin), {
    text: 'Origins of apps to which an enrollment may return, separated by commas.',
    example: 'https://app.example.com',
  }),
  adminPassword: variable('STRATOS_ADMIN_PASSWORD', '', readSecret, {
    text: 'Password of the operator for admin methods, at least 16 characters.',
    shown: 'admin methods are off',
    example: 'a long random text',
  }),
  devMode: variable('STRATOS_DEV_MODE', false, readBoolean, {
    text: 'On loopback only: "Authorization: Bearer did:..." names the caller, unproven.',
    example: 'true',
  }),
  plcUrl: variable('STRATOS_PLC_URL', 'https://plc.directory', readOrigin, {
    text: 'PLC directory that did:plc identifiers are looked up in.',
    example: 'https://plc.directory',
  }),
  handleResolverUrl: variable('STRATOS_HANDLE_RESOLVER_URL', '', readOrigin, {
    text: 'XRPC service that resolves handles, instead of DNS and HTTPS.',
    shown: 'DNS and HTTPS',
    example: 'https://public.api.bsky.app',
  }),
  privateNetwork: variable('STRATOS_ALLOW_PRIVATE_NETWORK', false, readBoolean, {
    text: 'Lets outgoing calls reach loopback and private addresses and plain http.',
    example: 'true',
  }),
  signingKeyHex: variable('STRATOS_SIGNING_KEY_HEX', '', readKeyHex, {
    text: 'secp256k1 key of the service, 64 hex digits, instead of the key file.',
    shown: 'the file signing_key in the data folder',
    example: '64 hex digits',
  }),
  synchronous: variable('STRATOS_SQLITE_SYNCHRONOUS', 'full', oneOf('full', 'normal'), {
    text: 'full: an acknowledged write survives a power cut; normal: a kill of the process.',
    example: 'normal',
  }),
  shards: variable('STRATOS_SHARDS', null, between(0, 64), {
    text: 'Worker threads that own actors; 0 runs them on the main thread.',
    shown: 'number of cores',
    example: '2',
  }),
  actorHandles: variable('STRATOS_ACTOR_HANDLES', 256, between(8, 100_000), {
    text: 'Actor databases held open, over all shards.',
    example: '1024',
  }),
  authFailuresPerMinute: variable('STRATOS_AUTH_FAILURES_PER_MINUTE', 300, between(1, 1_000_000), {
    text: 'Refused credentials of one address a minute; beyond it 429 before any is checked.',
    example: '300',
  }),
  clientName: variable('STRATOS_OAUTH_CLIENT_NAME', 'Stratos', readText, {
    text: 'Name that the PDS shows when it asks a person for consent.',
    example: 'Our community',
  }),
  operatorContact: variable('STRATOS_OPERATOR_CONTACT', '', readText, {
    text: 'How people reach the operator, shown on the page.',
    shown: 'none',
    example: 'mail@example.com',
  }),
  storage: variable('STORAGE_BACKEND', 'sqlite', oneOf('sqlite'), {
    text: 'Where data are kept: sqlite is the only one yet.',
    example: 'sqlite',
  }),
  logLevel: variable('LOG_LEVEL', 'info', oneOf('debug', 'info', 'warn', 'error', 'silent'), {
    text: 'Least severe log line that is written.',
    example: 'debug',
  }),
} as const

type Table = typeof variables
type Values = {
  readonly [Key in keyof Table]: ReturnType<Table[Key]['read']> | Table[Key]['fallback']
}

export interface Config extends Values {
  readonly publicUrl: string
  readonly serviceDid: string
  /** Qualified boundaries of this service. */
  readonly boundaries: readonly string[]
  /** Qualified boundaries that new people get. */
  readonly newBoundaries: readonly string[]
  /** What the operator should know at the start. */
  readonly warnings: readonly string[]
}

/** @throws ConfigError with one line for each bad variable */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems = strangers(env)
  const values: Record<string, unknown> = {}
  for (const [key, entry] of Object.entries(variables)) {
    const text = env[entry.name]
    try {
      values[key] = text === undefined ? entry.fallback : entry.read(text.trim())
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      problems.push(`${entry.name} ${why}; for example ${entry.name}=${entry.example}`)
    }
  }
  if (problems.length > 0) throw new ConfigError(problems)
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each by its own reader
  return complete(values as unknown as Values)
}

/** What stops the start: each problem names its variable, what is wrong, and an example. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('\n'))
    this.problems = problems
  }
}

/** Name, default and meaning of every variable, for `stratos help` and the README. */
export function describeVariables(): { name: string; fallback: string; text: string }[] {
  return Object.values(variables).map((entry) => ({
    name: entry.name,
    fallback:
      entry.shown ??
      (Array.isArray(entry.fallback) && entry.fallback.length === 0
        ? 'none'
        : String(entry.fallback)),
    text: entry.text,
  }))
}

export function isLoopbackHost(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase()
  return bare === 'localhost' || bare === '::1' || /^127(\.\d{1,3}){3}$/.test(bare)
}

function complete(values: Values): Config {
  const problems: string[] = []
  const listensOnLoopback = isLoopbackHost(values.host)
  if (values.publicUrl === '' && !listensOnLoopback) {
    problems.push(
      `${variables.publicUrl.name} must be set when ${variables.host.name} is not loopback; ` +
        `for example ${variables.publicUrl.name}=${variables.publicUrl.example}`,
    )
  }
  const publicUrl = values.publicUrl || `http://localhost:${values.port}`
  const publicHost = new URL(publicUrl)
  if (publicHost.protocol !== 'https:' && !isLoopbackHost(publicHost.hostname)) {
    problems.push(
      `${variables.publicUrl.name} must be https beyond loopback; ` +
        `for example ${variables.publicUrl.name}=${variables.publicUrl.example}`,
    )
  }
  if (values.devMode && !(listensOnLoopback && isLoopbackHost(publicHost.hostname))) {
    problems.push(
      `${variables.devMode.name} works on loopback only: unset it, or unset ` +
        `${variables.host.name} and ${variables.publicUrl.name}`,
    )
  }
  const serviceDid = values.serviceDid || `did:web:${encodeURIComponent(publicHost.host)}`
  const qualified = (names: readonly string[]) =>
    names.map((name) => qualifyBoundary(serviceDid, name))
  const boundaries = qualified(values.domains)
  for (const name of boundaries) {
    if (name.length <= boundaryCharsMax) continue
    problems.push(`${variables.domains.name} makes ${name}, over ${boundaryCharsMax} characters`)
  }
  const newBoundaries = values.autoEnroll === null ? boundaries : qualified(values.autoEnroll)
  for (const name of newBoundaries) {
    if (boundaries.includes(name)) continue
    problems.push(
      `${variables.autoEnroll.name} names ${name}, which ${variables.domains.name} lacks`,
    )
  }
  if (problems.length > 0) throw new ConfigError(problems)
  const warnings = values.publicUrl === '' ? [developmentIdentity(publicUrl)] : []
  return Object.freeze({
    ...values,
    publicUrl,
    serviceDid,
    boundaries,
    newBoundaries,
    warnings,
  })
}

function developmentIdentity(publicUrl: string): string {
  return (
    `${variables.publicUrl.name} is not set: this is a development identity at ${publicUrl}, ` +
    'reachable from this machine only'
  )
}

/** A misspelt or unsupported setting must not silently do nothing: it may be one that protects. */
function strangers(env: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set<string>(Object.values(variables).map(({ name }) => name))
  return Object.keys(env)
    .filter((name) => name.startsWith('STRATOS_') && !known.has(name))
    .map((name) => `${name} is not a variable of this program: unset it, or see "stratos help"`)
}

function variable<Value, const Fallback>(
  name: string,
  fallback: Fallback,
  read: (text: string) => Value,
  rest: { text: string; example: string; shown?: string },
): Variable<Value | Fallback> {
  return { name, fallback, read, ...rest }
}

function readText(text: string): string {
  if (text === '') throw new Error('must not be empty')
  return text
}

function readBoolean(text: string): boolean {
  if (text === 'true' || text === '1') return true
  if (text === 'false' || text === '0') return false
  throw new Error(`must be true, false, 1 or 0, not ${JSON.stringify(text)}`)
}

function between(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (value >= least && value <= most) return value
    throw new Error(`must be a whole number from ${least} to ${most}, not ${JSON.stringify(text)}`)
  }
}

function oneOf<const Choice extends string>(...choices: Choice[]): (text: string) => Choice {
  return (text) => {
    const choice = choices.find((one) => one === text)
    if (choice !== undefined) return choice
    throw new Error(`must be ${choices.join(' or ')}, not ${JSON.stringify(text)}`)
  }
}

function listOf(read: (text: string) => string): (text: string) => readonly string[] {
  return (text) => {
    const values = text === '' ? [] : text.split(',').map((part) => read(part.trim()))
    if (new Set(values).size !== values.length) throw new Error('names a value twice')
    return values
  }
}

function readName(text: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/i.test(text)) return text
  throw new Error(
    `must hold names of letters, digits, dots, dashes and underscores, not ${JSON.stringify(text)}`,
  )
}

function readDid(text: string): string {
  if (isDid(text)) return text
  throw new Error(`must hold DIDs, not ${JSON.stringify(text)}`)
}

function readServiceDid(text: string): string {
  if (isDid(text) && text.startsWith('did:web:')) return text
  throw new Error(`must be a did:web, not ${JSON.stringify(text)}`)
}

function readOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const web = url?.protocol === 'https:' || url?.protocol === 'http:'
  if (url !== undefined && web && (text === url.origin || text === `${url.origin}/`)) {
    return url.origin
  }
  throw new Error(`must be a URL of scheme and host alone, not ${JSON.stringify(text)}`)
}

function readFragment(text: string): string {
  if (/^[a-z0-9_-]{1,64}$/i.test(text)) return text
  throw new Error('must be 1 to 64 letters, digits, dashes and underscores')
}

const secretCharsMin = 16

/** The value itself never appears in the message. */
function readSecret(text: string): string {
  if (text.length >= secretCharsMin) return text
  throw new Error(`must have at least ${secretCharsMin} characters`)
}

function readKeyHex(text: string): string {
  if (/^[0-9a-f]{64}$/i.test(text)) return text
  throw new Error('must be 64 hex digits')
}
