import { RedisClient } from 'bun'
import type { Log } from '../lib/log.ts'
import { etagOf, listBytesMax } from './list.ts'

export interface SharedListOptions {
  /** May hold a password. */
  readonly url: string
  /** SHA-256 of the list's URI. */
  readonly listId: string
  readonly log: Log
  /** Over one command, or the connection. */
  readonly answerMs?: number
}

/** Which text is shared, and when it was that of the list. */
export interface SharedHead {
  readonly digest: string
  readonly etag: string | null
  readonly fetchedAtMs: number
}

export interface SharedText {
  readonly head: SharedHead
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** A copy of one list in a Valkey or Redis, shared by all services that read that list. */
export class SharedList {
  readonly #options: SharedListOptions
  #outage = false

  constructor(options: SharedListOptions) {
    this.#options = options
  }

  /** Connects for some commands in a row. A connection that fails is a visit to an empty place. */
  async visit(signal: AbortSignal): Promise<Visit> {
    const visit = new Visit(this.#options, signal, (fault) => this.#ended(fault))
    await visit.connect()
    return visit
  }

  /** Warns once an outage. */
  #ended(fault: string | undefined): void {
    const { log } = this.#options
    if (fault !== undefined && !this.#outage) log.warn('allow-list.shared.failed', { why: fault })
    if (fault === undefined && this.#outage) log.info('allow-list.shared.back')
    this.#outage = fault !== undefined
  }
}

/**
 * Some commands in a row. After the first that fails nothing more is sent: nothing is found then,
 * nothing kept, and the lock is free, so that everybody who visits fetches for themselves.
 */
export class Visit implements Disposable {
  readonly #options: SharedListOptions
  readonly #signal: AbortSignal
  readonly #ended: (fault: string | undefined) => void
  readonly #leave = (): void => this.#close()
  #client: RedisClient | undefined
  #fault: string | undefined

  constructor(
    options: SharedListOptions,
    signal: AbortSignal,
    ended: (fault: string | undefined) => void,
  ) {
    this.#options = options
    this.#signal = signal
    this.#ended = ended
    signal.addEventListener('abort', this.#leave, { once: true })
  }

  async connect(): Promise<void> {
    const { url, answerMs = answerMsMax } = this.#options
    if (this.#signal.aborted) return
    this.#client = new RedisClient(url, {
      connectionTimeout: answerMs,
      autoReconnect: false,
      enableOfflineQueue: false,
    })
    await this.#ask((client) => client.connect())
  }

  get failed(): boolean {
    return this.#client === undefined
  }

  /** What is shared now, without its text. */
  async head(): Promise<SharedHead | undefined> {
    const start = await this.#ask((client) => client.getrange(this.#key, 0, headBytesMax - 1))
    if (start === undefined || start === '') return undefined
    return this.#headIn(start.slice(0, Math.max(0, start.indexOf('\n'))))
  }

  /** The text, if it is the one that its head speaks of. */
  async text(): Promise<SharedText | undefined> {
    const size = (await this.#ask((client) => client.strlen(this.#key))) ?? 0
    if (size > headBytesMax + listBytesMax) this.complain(`a copy of ${size} bytes`)
    if (size === 0 || size > headBytesMax + listBytesMax) return undefined
    const value = await this.#ask((client) => client.getBuffer(this.#key))
    if (value === undefined || value === null) return undefined
    const end = value.indexOf(lineFeed)
    const head = this.#headIn(new TextDecoder().decode(value.subarray(0, Math.max(0, end))))
    const bytes = value.subarray(end + 1)
    if (head === undefined) return undefined
    if (head.digest === digestOf(bytes)) return { head, bytes }
    this.complain('a copy that is not whole')
    return undefined
  }

  /**
   * Whether it falls to this visitor to fetch. The lock goes by itself; until then others wait for
   * what its holder shares.
   */
  async lock(): Promise<boolean> {
    const set = (client: RedisClient) =>
      client.set(this.#lockKey, '1', 'NX', 'PX', String(lockMsMax))
    return (await this.#ask(set)) !== null
  }

  /** For a holder who has nothing to share. */
  async unlock(): Promise<void> {
    await this.#ask((client) => client.del(this.#lockKey))
  }

  async share({ head, bytes }: SharedText): Promise<void> {
    const { digest, etag, fetchedAtMs } = head
    const line = JSON.stringify({ digest, etag, fetchedAtMs })
    const value = Buffer.concat([Buffer.from(`${line}\n`), bytes])
    await this.#ask((client) => client.set(this.#key, value, 'PX', keptMs))
  }

  /** What is shared is no list: the outage is one like any other. */
  complain(fault: string): void {
    this.#fault ??= fault
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener('abort', this.#leave)
    this.#close()
    if (!this.#signal.aborted) this.#ended(this.#fault)
  }

  get #key(): string {
    return `stratos:allow-list:${this.#options.listId}`
  }

  get #lockKey(): string {
    return `${this.#key}:lock`
  }

  #headIn(line: string): SharedHead | undefined {
    const head = parseHead(line)
    if (head === undefined) this.complain('no copy of a list, but something else')
    return head
  }

  async #ask<T>(command: (client: RedisClient) => Promise<T>): Promise<T | undefined> {
    const client = this.#client
    if (client === undefined) return undefined
    const { answerMs = answerMsMax } = this.#options
    const timer = setTimeout(() => {
      this.complain(`no answer in ${answerMs} ms`)
      this.#close()
    }, answerMs)
    try {
      return await command(client)
    } catch (error) {
      const code = codeOf(error)
      if (code === undefined) throw error
      this.complain(code)
      this.#close()
      return undefined
    } finally {
      clearTimeout(timer)
    }
  }

  /** Whatever waits for an answer gets none. */
  #close(): void {
    this.#client?.close()
    this.#client = undefined
  }
}

export function digestOf(bytes: Uint8Array): string {
  return Bun.SHA256.hash(bytes, 'hex')
}

function parseHead(line: string): SharedHead | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { digest, etag, fetchedAtMs }: { digest?: unknown; etag?: unknown; fetchedAtMs?: unknown } =
    value
  if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest)) return undefined
  if (typeof fetchedAtMs !== 'number' || !Number.isSafeInteger(fetchedAtMs)) return undefined
  return { digest, etag: etagOf(etag), fetchedAtMs }
}

/** The text of such an error may repeat the URL, and with it a password. */
function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  const { code } = error
  return typeof code === 'string' && code.startsWith('ERR_REDIS_') ? code : undefined
}

const lineFeed = 10
/** The largest head, with an entity tag of which every character is escaped. */
const headBytesMax = 1024
/** A whole list in a network where that takes half of it. */
const answerMsMax = 5_000
/** Longer than a fetch and what comes after it. */
export const lockMsMax = 45_000
/** Enough to be renewed some times, and gone when nobody reads the list any more. */
const keptMs = 60 * 60_000
