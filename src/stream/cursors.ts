import { type Did, isDid } from '../atproto/syntax.ts'

/** What a reader sends of where they are is no message of this kind, or too much. */
export class CursorsError extends Error {
  override readonly name = 'CursorsError'
}

/**
 * Where a reader of all commits is, as they say it in several messages:
 * `{"cursors": {"<did>": <seq>}, "more": <boolean>}`, the last one with `more` false.
 */
export class Cursors {
  readonly #cursors = new Map<Did, number>()
  #chars = 0

  /** @returns the whole, after the last message. @throws CursorsError */
  add(message: string): ReadonlyMap<Did, number> | undefined {
    this.#chars += message.length
    if (message.length > messageCharsMax || this.#chars > charsMax) {
      throw new CursorsError('these are more cursors than a reader may have')
    }
    const { cursors, more } = parsed(message)
    for (const [did, seq] of Object.entries(cursors)) {
      if (!isDid(did) || !Number.isSafeInteger(seq) || Number(seq) < 0) {
        throw new CursorsError('a cursor is a DID with a number')
      }
      this.#cursors.set(did, Number(seq))
    }
    return more ? undefined : this.#cursors
  }
}

/** @see protocol.md, section 6 */
const messageCharsMax = 1024 * 1024
const charsMax = 64 * 1024 * 1024

function parsed(message: string): { cursors: object; more: boolean } {
  let value: unknown
  try {
    value = JSON.parse(message)
  } catch {
    throw new CursorsError('cursors come as JSON')
  }
  if (typeof value === 'object' && value !== null && 'cursors' in value && 'more' in value) {
    const { cursors, more } = value
    const isMap = typeof cursors === 'object' && cursors !== null && !Array.isArray(cursors)
    if (isMap && typeof more === 'boolean') return { cursors, more }
  }
  throw new CursorsError('cursors come as {"cursors": {...}, "more": false}')
}
