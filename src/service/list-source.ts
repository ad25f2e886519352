import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { sleep } from '../lib/pause.ts'
import type { Fetch } from '../remote/fetch.ts'
import { fetchList } from '../remote/list.ts'
import { digestOf, lockMsMax, type SharedList, type Visit } from '../remote/shared-list.ts'
import type { ListCopy } from '../store/allow-list.ts'
import { NoList, readList } from './list-text.ts'

/** The newest text of a list; `dids` is absent when it is the text that was known. */
export interface Newest {
  readonly copy: ListCopy
  readonly dids?: Set<Did>
}

interface Parts {
  readonly uri: string
  readonly fetch: Fetch
  readonly now: () => number
  /** Where services that read the same list share it. */
  readonly shared?: SharedList
  /** Between two looks for what the holder of the lock shares. */
  readonly pollMs?: number
  readonly pollsMax?: number
}

interface Ask {
  /** What is shared may be this old; what is not shared is fetched. */
  readonly ageMsMax: number
  readonly signal: AbortSignal
}

/**
 * The list as its server gives it. Services that share it fetch it once an interval, all together:
 * who finds no young copy takes the lock and fetches; the others wait for what that one shares.
 * Whatever is shared goes through the same checks as what is fetched.
 */
export class ListSource {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /**
   * @throws FetchRefused
   * @throws FetchFailed
   * @throws NoList
   */
  async newest(known: ListCopy | undefined, ask: Ask): Promise<Newest> {
    const { signal } = ask
    using visit = await this.#parts.shared?.visit(signal)
    if (visit === undefined) return await this.#fetch(known, { etag: known?.etag ?? null, signal })
    const young = await this.#young(visit, known, ask)
    if (young !== undefined) return young
    try {
      return await this.#fetchAndShare(visit, known, signal)
    } catch (error) {
      await visit.unlock()
      throw error
    }
  }

  /** A shared copy that is young enough; undefined when it falls to this service to fetch one. */
  async #young(visit: Visit, known: ListCopy | undefined, ask: Ask): Promise<Newest | undefined> {
    const { now, pollMs = pollMsDefault, pollsMax = lockMsMax / pollMsDefault } = this.#parts
    const endMs = now() + lockMsMax
    // A Valkey that takes long for each answer must not make the wait many times as long.
    for (let polls = 0; polls < pollsMax && now() <= endMs; polls++) {
      const head = await visit.head()
      const ageMs = head === undefined ? Infinity : now() - head.fetchedAtMs
      if (head !== undefined && ageMs <= ask.ageMsMax && ageMs >= -clockSkewMsMax) {
        if (head.digest === known?.digest) return { copy: head }
        return await this.#taken(visit, ask.signal)
      }
      if (await visit.lock()) return undefined
      await sleep(pollMs, ask.signal)
    }
    return undefined
  }

  async #taken(visit: Visit, signal: AbortSignal): Promise<Newest | undefined> {
    const text = await visit.text()
    if (text === undefined) return undefined
    try {
      return { copy: text.head, dids: await readList(text.bytes, signal) }
    } catch (error) {
      if (!(error instanceof NoList)) throw error
      visit.complain(error.message)
      return undefined
    }
  }

  async #fetchAndShare(visit: Visit, known: ListCopy | undefined, signal: AbortSignal) {
    const shared = await visit.text()
    // "Unchanged" is an answer only for who can share the text again, or cannot share at all.
    const asksForChange = visit.failed || shared?.head.digest === known?.digest
    const etag = asksForChange ? (known?.etag ?? null) : null
    const fetched = await this.#fetch(known, { etag, signal })
    const bytes = fetched.bytes ?? shared?.bytes
    if (bytes !== undefined) await visit.share({ head: fetched.copy, bytes })
    return fetched
  }

  async #fetch(
    known: ListCopy | undefined,
    ask: { readonly etag: string | null; readonly signal: AbortSignal },
  ): Promise<Newest & { readonly bytes?: Uint8Array<ArrayBuffer> }> {
    const { uri, fetch, now } = this.#parts
    const answer = await fetchList(uri, { ...ask, fetch })
    const fetchedAtMs = now()
    if (answer === 'unchanged') {
      assert(known !== undefined, 'only who knows a text asks whether it changed')
      return { copy: { ...known, fetchedAtMs } }
    }
    const { bytes, etag } = answer
    const digest = digestOf(bytes)
    const copy = { digest, etag, fetchedAtMs }
    if (digest === known?.digest) return { copy, bytes }
    return { copy, bytes, dids: await readList(bytes, ask.signal) }
  }
}

const pollMsDefault = 500
/** Clocks of services differ; a copy from further ahead would never grow old. */
const clockSkewMsMax = 60_000
