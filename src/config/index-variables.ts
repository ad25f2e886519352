import { type Did, isDid } from '../atproto/syntax.ts'
import { listOf, readOrigin, variable } from '../lib/settings.ts'

/** A service that the index follows. */
export interface IndexedService {
  readonly did: Did
  /** Where it is, if its document is not to say so. */
  readonly origin: string | undefined
}

/** Settings of the indexer and the AppView. */
export const indexVariables = {
  indexPostgresUrl: variable('STRATOS_INDEX_POSTGRES_URL', '', readPostgresUrl, {
    text: 'PostgreSQL of the index, for the commands index, appview and all.',
    shown: 'none; the command all then starts one of its own',
    example: 'postgres://stratos:password@127.0.0.1:5432/stratos',
  }),
  indexServices: variable('STRATOS_INDEX_SERVICES', [], readServices, {
    text: 'Services that the index follows: DIDs, or DID=origin where their document does not count.',
    shown: 'none; the command all follows its own service anyhow',
    example: 'did:web:stratos.example.com',
  }),
  indexFirehoses: variable('STRATOS_INDEX_FIREHOSES', [], listOf(readSocketUrl), {
    text: 'PDSes or relays whose firehose hints at enrollments, as wss:// URLs.',
    example: 'wss://relay.example.com',
  }),
} as const

/** Not repeated: it holds a password. */
function readPostgresUrl(text: string): string {
  const url = URL.parse(text)
  const isPostgres = url?.protocol === 'postgres:' || url?.protocol === 'postgresql:'
  if (isPostgres && url.hostname !== '' && url.pathname.length > 1) {
    if ([url.username, url.password, url.pathname].every(isEscaped)) return text
  }
  throw new Error('must be postgres://user:password@host:port/database')
}

/** What is not would fail where the connection is made. */
function isEscaped(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch (error) {
    if (error instanceof URIError) return false
    throw error
  }
}

function readServices(text: string): readonly IndexedService[] {
  const services = text === '' ? [] : text.split(',').map((part) => readService(part.trim()))
  if (new Set(services.map(({ did }) => did)).size === services.length) return services
  throw new Error('names a DID twice')
}

function readService(text: string): IndexedService {
  const [did = '', origin, ...rest] = text.split('=').map((part) => part.trim())
  if (!isDid(did) || rest.length > 0) {
    throw new Error(`must hold DIDs, or DID=origin, not ${JSON.stringify(text)}`)
  }
  return { did, origin: origin === undefined ? undefined : readOrigin(origin) }
}

/** Not repeated: it may hold a password. */
function readSocketUrl(text: string): string {
  const protocol = URL.parse(text)?.protocol
  if (protocol === 'wss:' || protocol === 'ws:') return text
  throw new Error('must hold URLs that start with wss:// or ws://')
}
