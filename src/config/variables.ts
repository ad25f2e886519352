import { isIP } from 'node:net'
import { KeyError, ServiceKey } from '../atproto/keys.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import {
  between,
  listOf,
  oneOf,
  readBoolean,
  readNetwork,
  readOrigin,
  readText,
  readUrl,
  readWebUrl,
  variable,
} from '../lib/settings.ts'
import { blobVariables } from './blob-variables.ts'
import { indexVariables } from './index-variables.ts'
import { defaultCollections, isCollectionPattern, isNeverPrivate } from '../service/collections.ts'

/** Every setting: the one place for names, defaults, units and meanings. */
export const variables = {
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
  collections: variable('STRATOS_COLLECTIONS', defaultCollections, listOf(readCollection), {
    text: 'Collections of private records: NSIDs, or com.example.* for all that begin so.',
    example: 'zone.stratos.feed.post,com.example.notes.*',
  }),
  lexiconDir: variable('STRATOS_LEXICON_DIR', '', readText, {
    text: 'Folder of lexicons (JSON) that records of further collections are held against.',
    shown: 'none',
    example: '/etc/stratos/lexicons',
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
  allowListUri: variable('STRATOS_ALLOW_LIST_URI', '', readUrl('https:', 'http:'), {
    text: 'List of DIDs that may enroll in allowlist mode, one a line, read every 10 minutes.',
    shown: 'none',
    example: 'https://lists.example.com/members.txt',
  }),
  allowListEnforce: variable(
    'STRATOS_ALLOWLIST_ENFORCE',
    'enrollment',
    oneOf('enrollment', 'continuous'),
    {
      text: 'Whether the lists count when people enroll, or always: who leaves them turns inactive.',
      example: 'continuous',
    },
  ),
  valkeyUrl: variable('STRATOS_VALKEY_URL', '', readValkey, {
    text: 'Valkey or Redis through which several services share one copy of the list.',
    shown: 'none',
    example: 'redis://127.0.0.1:6379',
  }),
  redirectOrigins: variable('STRATOS_ALLOWED_REDIRECT_ORIGINS', [], listOf(readOrigin), {
    text: 'Origins of apps to which an enrollment may return, separated by commas.',
    example: 'https://app.example.com',
  }),
  publishBoundaries: variable('STRATOS_PUBLISH_BOUNDARIES', true, readBoolean, {
    text: "Whether a person's public enrollment record names their boundaries.",
    example: 'false',
  }),
  stubs: variable('STRATOS_STUBS', 'full', oneOf('full', 'off'), {
    text: 'Stubs in the public repo for private records: full, or off; a change removes or adds them.',
    example: 'off',
  }),
  outboxPoints: variable('STRATOS_OUTBOX_POINTS_PER_HOUR', 800, between(10, 1_000_000), {
    text: "Most points of a person's write budget on the PDS that are used in an hour.",
    example: '800',
  }),
  modServiceDid: variable('STRATOS_MOD_SERVICE_DID', '', readDid, {
    text: 'DID of a moderation service that may take content down, by service auth.',
    shown: 'none',
    example: 'did:web:mod.example.com',
  }),
  allowedAppViews: variable('STRATOS_ALLOWED_APPVIEWS', [], readAppViews, {
    text: 'AppViews that may read: DIDs, or DID=name with bars between names for some boundaries.',
    example: 'did:web:appview.example.com=cycling|climbing',
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
    shown: 'number of cores less one, at least 1',
    example: '2',
  }),
  actorHandles: variable('STRATOS_ACTOR_HANDLES', 256, between(8, 100_000), {
    text: 'Actor databases held open, over all shards.',
    example: '1024',
  }),
  journalBytes: variable('STRATOS_JOURNAL_BYTES', 8_388_608, between(65_536, 1_073_741_824), {
    text: 'Size of each of the two files of a shard’s journal.',
    example: '33554432',
  }),
  retentionDays: variable('STRATOS_RETENTION_DAYS', 30, between(1, 36_500), {
    text: 'Days for which events are kept for streams to begin with.',
    example: '90',
  }),
  importBytesMax: variable(
    'STRATOS_IMPORT_MAX_BYTES',
    268_435_456,
    between(1_048_576, 4_294_967_295),
    {
      text: 'Size of a repo that people may import, as a CAR.',
      example: '1073741824',
    },
  ),
  authFailuresPerMinute: variable('STRATOS_AUTH_FAILURES_PER_MINUTE', 300, between(1, 1_000_000), {
    text: 'Refused credentials of one address a minute; beyond it 429 before any is checked.',
    example: '300',
  }),
  dpopRequireNonce: variable('STRATOS_DPOP_REQUIRE_NONCE', true, readBoolean, {
    text: 'Whether every DPoP proof needs a nonce of this service; else the time in it counts alone.',
    example: 'true',
  }),
  serviceAuthSingleUse: variable('STRATOS_SERVICE_AUTH_SINGLE_USE', false, readBoolean, {
    text: 'Takes each service-auth token once, and within 5 minutes: needs a new one for each request.',
    example: 'true',
  }),
  syncToken: variable('STRATOS_SYNC_TOKEN', '', readSyncToken, {
    text: 'Secret that opens the stream of records with all boundaries: at least 32 bytes, no spaces.',
    shown: 'none',
    // As a command: a value that stands here would be known to everybody.
    example: '$(openssl rand -hex 32)',
  }),
  anonymousRequestsPerMinute: variable(
    'STRATOS_ANONYMOUS_REQUESTS_PER_MINUTE',
    3000,
    between(1, 1_000_000),
    {
      text: 'Requests without credentials of one address a minute; beyond it 429 before any work.',
      example: '3000',
    },
  ),
  writeRateMax: variable('STRATOS_WRITE_RATE_MAX_WRITES', 300, between(1, 1_000_000), {
    text: 'Writes of one person within the window; further ones are answered 429.',
    example: '300',
  }),
  writeRateWindowMs: variable('STRATOS_WRITE_RATE_WINDOW_MS', 60_000, between(1000, 86_400_000), {
    text: 'Milliseconds of the window for writes.',
    example: '60000',
  }),
  writeRateCooldownMs: variable('STRATOS_WRITE_RATE_COOLDOWN_MS', 10_000, between(0, 3_600_000), {
    text: 'Least milliseconds without writes for who went over the limit; up to half is added.',
    example: '10000',
  }),
  writeRatePoints: variable('STRATOS_WRITE_RATE_POINTS', false, readBoolean, {
    text: 'Counts points as a PDS does, 3 to create, 2 to update, 1 to delete, instead of writes.',
    example: 'true',
  }),
  trustedProxies: variable('STRATOS_TRUSTED_PROXIES', [], listOf(readNetwork), {
    text: 'Networks of your reverse proxies, whose X-Forwarded-For tells the address of a caller.',
    example: '127.0.0.1/32,10.0.0.0/8',
  }),
  clientName: variable('STRATOS_OAUTH_CLIENT_NAME', 'Stratos', readText, {
    text: 'Name that the PDS shows when it asks a person for consent.',
    example: 'Our community',
  }),
  clientLogoUri: variable('STRATOS_OAUTH_LOGO_URI', '', readWebUrl, {
    text: 'Logo of this service for the consent page of a PDS.',
    shown: 'none',
    example: 'https://stratos.example.com/logo.png',
  }),
  clientTosUri: variable('STRATOS_OAUTH_TOS_URI', '', readWebUrl, {
    text: 'Terms of service of this service, for the consent page of a PDS.',
    shown: 'none',
    example: 'https://stratos.example.com/terms',
  }),
  clientPolicyUri: variable('STRATOS_OAUTH_POLICY_URI', '', readWebUrl, {
    text: 'Privacy policy of this service, for the consent page of a PDS.',
    shown: 'none',
    example: 'https://stratos.example.com/privacy',
  }),
  clientId: variable('STRATOS_OAUTH_CLIENT_ID', '', readClientId, {
    text: 'Where a copy of what /client-metadata.json answers is hosted, if PDSes shall read that.',
    shown: '{public URL}/client-metadata.json',
    example: 'https://www.example.com/stratos/client-metadata.json',
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
  ...blobVariables,
  ...indexVariables,
  logLevel: variable('LOG_LEVEL', 'info', oneOf('debug', 'info', 'warn', 'error', 'silent'), {
    text: 'Least severe log line that is written.',
    example: 'debug',
  }),
} as const

/** An AppView that may read, and the bare names of its boundaries. */
interface AllowedAppView {
  readonly did: Did
  readonly names: 'all' | readonly string[]
}

function readAppViews(text: string): readonly AllowedAppView[] {
  const appViews = text === '' ? [] : text.split(',').map((part) => readAppView(part.trim()))
  if (new Set(appViews.map(({ did }) => did)).size === appViews.length) return appViews
  throw new Error('names a DID twice')
}

function readAppView(text: string): AllowedAppView {
  const [did = '', names, ...rest] = text.split('=').map((part) => part.trim())
  if (!isDid(did) || rest.length > 0) {
    throw new Error(`must hold DIDs, or DID=name|name, not ${JSON.stringify(text)}`)
  }
  // Who writes a "=" means to name fewer than all.
  if (names === undefined) return { did, names: 'all' }
  const read = names.split('|').map((name) => readName(name.trim()))
  if (new Set(read).size !== read.length) throw new Error(`names a boundary of ${did} twice`)
  return { did, names: read }
}

function readName(text: string): string {
  if (/^[a-z0-9][a-z0-9._-]{0,62}$/i.test(text)) return text
  throw new Error(
    `must hold names of letters, digits, dots, dashes and underscores, not ${JSON.stringify(text)}`,
  )
}

function readCollection(text: string): string {
  if (!isCollectionPattern(text)) {
    throw new Error(
      `must hold collections as com.example.thing or com.example.*, not ${JSON.stringify(text)}`,
    )
  }
  if (isNeverPrivate(text)) throw new Error(`names ${text}, which is never private`)
  return text
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
  const isTaken = ['atproto', 'stratos', 'stratos_appview'].includes(text)
  if (/^[a-z0-9_-]{1,64}$/i.test(text) && !isTaken) return text
  throw new Error(
    'must be 1 to 64 letters, digits, dashes and underscores, but not atproto, stratos or stratos_appview',
  )
}

function readValkey(text: string): string {
  const { hostname, port, pathname } = new URL(readUrl('redis:', 'rediss:', 'valkey:')(text))
  if (hostname !== '' && port !== '0' && /^(\/\d{0,3})?$/.test(pathname)) return text
  throw new Error('must name a host, and after it at most the number of a database')
}

/** @see https://atproto.com/specs/oauth#clients */
function readClientId(text: string): string {
  const id = readWebUrl(text)
  const { hostname, pathname, hash } = new URL(id)
  const isFile = !pathname.endsWith('/') && hash === ''
  const isName = isIP(hostname.replace(/^\[|\]$/g, '')) === 0 && hostname.includes('.')
  if (id === text && isFile && isName) return id
  throw new Error('must be the plain address of a file at a domain name, with its path')
}

const secretCharsMin = 16

/** The value itself never appears in the message. */
function readSecret(text: string): string {
  if (text.length >= secretCharsMin) return text
  throw new Error(`must have at least ${secretCharsMin} characters`)
}

const syncTokenBytesMin = 32

/** Nor does this one. It comes in queries and headers, beside tokens of other forms. */
function readSyncToken(text: string): string {
  if (Buffer.byteLength(text) < syncTokenBytesMin) {
    throw new Error(`must have at least ${syncTokenBytesMin} bytes`)
  }
  const isToken = text.startsWith('did:') || text.split('.').length === 3
  if (/^[\x21-\x7e]+$/.test(text) && !isToken) return text
  throw new Error('must be printable ASCII without spaces, and look like no DID and no JWT')
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
