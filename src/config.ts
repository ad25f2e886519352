import { KeyError, ServiceKey } from './atproto/keys.ts'
import { isDid } from './atproto/syntax.ts'
import {
  between,
  listOf,
  oneOf,
  readBoolean,
  readNetwork,
  readOrigin,
  readText,
  type Variable,
  variable,
} from './lib/settings.ts'
import { boundariesOfPersonMax, boundaryCharsMax, qualifyBoundary } from './service/boundary.ts'

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
  trustedProxies: variable('STRATOS_TRUSTED_PROXIES', [], listOf(readNetwork), {
    text: 'Networks of your reverse proxies, whose X-Forwarded-For tells the address of a caller.',
    example: '127.0.0.1/32,10.0.0.0/8',
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
  const bad = new Set<string>()
  const values: Record<string, unknown> = {}
  for (const [key, entry] of Object.entries(variables)) {
    const text = env[entry.name]
    values[key] = entry.fallback
    try {
      if (text !== undefined) values[key] = entry.read(text.trim())
    } catch (error) {
      bad.add(entry.name)
      problems.push(problem(entry, error instanceof Error ? error.message : String(error)))
    }
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each by its own reader
  const given = values as unknown as Values
  const config = complete(given)
  // Nothing is said of a fallback that stands in for a bad value.
  for (const { at, why, because } of conflicts(given, config)) {
    if (![at, ...because].some(({ name }) => bad.has(name))) problems.push(problem(at, why))
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return config
}

function problem({ name, example }: Pick<Variable<unknown>, 'name' | 'example'>, why: string) {
  return `${name} ${why}; for example ${name}=${example}`
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
  const publicUrl = values.publicUrl || `http://localhost:${values.port}`
  const serviceDid = values.serviceDid || `did:web:${encodeURIComponent(new URL(publicUrl).host)}`
  const qualified = (names: readonly string[]) =>
    names.map((name) => qualifyBoundary(serviceDid, name))
  const boundaries = qualified(values.domains)
  const newBoundaries = values.autoEnroll === null ? boundaries : qualified(values.autoEnroll)
  const warnings = warningsOf(values, publicUrl)
  return Object.freeze({ ...values, publicUrl, serviceDid, boundaries, newBoundaries, warnings })
}

const loopbackNames: ReadonlySet<string> = new Set(['localhost', '127.0.0.1'])

/** What is wrong with a variable only because of others. */
interface Conflict {
  readonly at: Pick<Variable<unknown>, 'name' | 'example'>
  readonly why: string
  readonly because: readonly Pick<Variable<unknown>, 'name'>[]
}

function conflicts(given: Values, config: Config): Conflict[] {
  const { host, publicUrl, serviceDid, devMode, domains, autoEnroll } = variables
  const found: Conflict[] = []
  const listensOnLoopback = isLoopbackHost(config.host)
  if (given.publicUrl === '' && !listensOnLoopback) {
    const why = `must be set when ${host.name} is not loopback`
    found.push({ at: publicUrl, why, because: [host] })
  }
  const { protocol, hostname } = new URL(config.publicUrl)
  if (protocol !== 'https:' && !isLoopbackHost(hostname)) {
    found.push({ at: publicUrl, why: 'must be https beyond loopback', because: [] })
  }
  if (protocol === 'http:' && !loopbackNames.has(hostname)) {
    const why = 'must be at localhost or 127.0.0.1 when it is http: a PDS returns to no other'
    if (isLoopbackHost(hostname)) found.push({ at: publicUrl, why, because: [] })
  }
  if (config.newBoundaries.length > boundariesOfPersonMax) {
    const why = `must name the boundaries of new people: at most ${boundariesOfPersonMax}`
    found.push({ at: autoEnroll, why, because: [domains] })
  }
  if (config.devMode && !(listensOnLoopback && isLoopbackHost(hostname))) {
    const why = `works on loopback only: unset it, or unset ${host.name} and ${publicUrl.name}`
    const at = { name: devMode.name, example: 'false' }
    found.push({ at, why, because: [host, publicUrl] })
  }
  for (const name of config.boundaries) {
    if (name.length <= boundaryCharsMax) continue
    const why = `makes ${name}, over ${boundaryCharsMax} characters`
    found.push({ at: domains, why, because: [serviceDid, publicUrl] })
  }
  for (const name of config.newBoundaries) {
    if (config.boundaries.includes(name)) continue
    const why = `names ${name}, which ${domains.name} lacks`
    found.push({ at: autoEnroll, why, because: [domains] })
  }
  return found
}

function warningsOf(values: Values, publicUrl: string): string[] {
  if (values.publicUrl === '') return [developmentIdentity(publicUrl)]
  if (!publicUrl.startsWith('https:') || values.trustedProxies.length > 0) return []
  return [
    `${variables.trustedProxies.name} is not set: behind a proxy all callers have one address, ` +
      'and share its limits',
  ]
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

function readFragment(text: string): string {
  const taken = text === 'atproto' || text === 'stratos'
  if (/^[a-z0-9_-]{1,64}$/i.test(text) && !taken) return text
  throw new Error(
    'must be 1 to 64 letters, digits, dashes and underscores, but not atproto or stratos',
  )
}

const secretCharsMin = 16

/** The value itself never appears in the message. */
function readSecret(text: string): string {
  if (text.length >= secretCharsMin) return text
  throw new Error(`must have at least ${secretCharsMin} characters`)
}

/** Nor does the key. */
function readKeyHex(text: string): string {
  try {
    return ServiceKey.import(text).exportHex()
  } catch (error) {
    if (!(error instanceof KeyError)) throw error
    throw new Error('must be 64 hex digits that are a key of secp256k1', { cause: error })
  }
}
