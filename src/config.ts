import type { Did } from './atproto/syntax.ts'
import { bucketFaults } from './config/blob-variables.ts'
import { variables } from './config/variables.ts'
import type { Variable } from './lib/settings.ts'
import { ownMetadataPaths } from './remote/oauth-client.ts'
import { boundariesOfPersonMax, boundaryCharsMax, qualifyBoundary } from './service/boundary.ts'

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
  /** Qualified boundaries within which each AppView may read, by its DID. */
  readonly appViews: ReadonlyMap<Did, 'all' | readonly string[]>
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
    fallback: entry.shown ?? shown(entry.fallback),
    text: entry.text,
  }))
}

function shown(fallback: unknown): string {
  if (!Array.isArray(fallback)) return String(fallback)
  return fallback.length === 0 ? 'none' : fallback.join()
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
  const appViews = new Map(
    values.allowedAppViews.map(({ did, names }) => {
      return [did, names === 'all' ? names : qualified(names)] as const
    }),
  )
  const warnings = warningsOf(values, publicUrl)
  const named = { publicUrl, serviceDid, boundaries, newBoundaries, appViews }
  return Object.freeze({ ...values, ...named, warnings })
}

const loopbackNames: ReadonlySet<string> = new Set(['localhost', '127.0.0.1'])

/** What is wrong with a variable only because of others. */
interface Conflict {
  readonly at: Pick<Variable<unknown>, 'name' | 'example'>
  readonly why: string
  readonly because: readonly Pick<Variable<unknown>, 'name'>[]
}

function conflicts(given: Values, config: Config): Conflict[] {
  const { host, publicUrl, serviceDid, devMode, domains, autoEnroll, clientId } = variables
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
  for (const { at, why } of bucketFaults(config)) {
    found.push({ at: variables[at], why, because: bucketVariables })
  }
  const list = listFault(config)
  if (list !== undefined) {
    found.push({ at: variables.allowListUri, why: list, because: [variables.privateNetwork] })
  }
  const services = servicesFault(config)
  if (services !== undefined) {
    found.push({ at: variables.indexServices, why: services, because: [variables.privateNetwork] })
  }
  if (given.clientId !== '') {
    const why = clientIdFault(given.clientId, config.publicUrl)
    if (why !== undefined) found.push({ at: clientId, why, because: [publicUrl, host] })
  }
  for (const name of [...config.appViews.values()].flat()) {
    if (name === 'all' || config.boundaries.includes(name)) continue
    const why = `names ${name}, which ${domains.name} lacks`
    found.push({ at: variables.allowedAppViews, why, because: [domains] })
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

const bucketVariables = [
  variables.blobStorage,
  variables.s3Endpoint,
  variables.s3AccessKey,
  variables.s3SecretKey,
]

/** What would keep the list from ever being read. */
function listFault({ allowListUri, privateNetwork }: Values): string | undefined {
  const url = URL.parse(allowListUri)
  if (url === null) return undefined
  if (url.username !== '' || url.password !== '') return 'must be without a user name and password'
  if (privateNetwork || (url.protocol === 'https:' && url.port === '')) return undefined
  return `must be https at its usual port unless ${variables.privateNetwork.name} is true`
}

/** Each call of a service carries a credential: in the clear it would be for everybody on the way. */
function servicesFault({ indexServices, privateNetwork }: Values): string | undefined {
  const bare = indexServices.find(({ origin = '' }) => {
    const url = URL.parse(origin)
    return url?.protocol === 'http:' && !isLoopbackHost(url.hostname)
  })
  if (bare === undefined || privateNetwork) return undefined
  const unless = `unless ${variables.privateNetwork.name} is true`
  return `names ${bare.origin}, which must be https beyond loopback ${unless}`
}

function clientIdFault(clientId: string, service: string): string | undefined {
  if (!service.startsWith('https:')) return `needs ${variables.publicUrl.name} to be https`
  const { origin, pathname, search } = new URL(clientId)
  const answered = ownMetadataPaths.some((path) => path === pathname) && search === ''
  if (origin !== service || answered) return undefined
  return `is at this service itself, which answers at ${ownMetadataPaths.join(' and ')} only`
}

function warningsOf(values: Values, publicUrl: string): string[] {
  const bucket = bucketWarnings(values)
  if (values.publicUrl === '') return [developmentIdentity(publicUrl), ...bucket]
  if (!publicUrl.startsWith('https:') || values.trustedProxies.length > 0) return bucket
  return [
    ...bucket,
    `${variables.trustedProxies.name} is not set: behind a proxy all callers have one address, ` +
      'and share its limits',
  ]
}

function bucketWarnings({ blobStorage, s3Endpoint }: Values): string[] {
  const url = blobStorage === 's3' ? URL.parse(s3Endpoint) : null
  if (url === null || url.protocol === 'https:' || isLoopbackHost(url.hostname)) return []
  return [`${variables.s3Endpoint.name} is http: private blobs cross the network unencrypted`]
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
