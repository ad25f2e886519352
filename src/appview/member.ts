import type { Did } from '../atproto/syntax.ts'
import { Tally } from '../lib/tally.ts'
import { IndexReads } from './index-reads.ts'

/**
 * Whether somebody is enrolled with any service of the index, as far as it knows.
 * @throws XrpcError 503
 */
export async function isMember(
  reads: IndexReads,
  { did, reader }: { readonly did: Did; readonly reader: Did | undefined },
): Promise<boolean> {
  const rows = await reads.rows<{ readonly did: string }>(memberText, [did], reader)
  return rows.length > 0
}

const memberText = 'select did from stratos_enrollment where did = $1 limit 1'

/**
 * The same, of callers who have proven nothing yet: anybody can make a new name up for every request.
 * So this has a connection of its own, and so many questions a second; beyond these, nobody is a
 * member.
 */
export class MemberQuestions implements AsyncDisposable {
  readonly #reads: IndexReads
  readonly #now: () => number
  readonly #seconds = new Tally({ windowMs: 1000, keysMax: 1 })

  constructor({ url, now }: { readonly url: string | undefined; readonly now: () => number }) {
    this.#reads = new IndexReads({ url, connectionsMax: 1 })
    this.#now = now
  }

  /** @throws XrpcError 503 */
  async isMember(did: Did): Promise<boolean> {
    const nowMs = this.#now()
    if (this.#seconds.count('all', nowMs) >= questionsPerSecondMax) return false
    this.#seconds.add('all', nowMs)
    return await isMember(this.#reads, { did, reader: undefined })
  }

  /** The index is elsewhere, or nowhere, from now on. */
  use(url: string | undefined): void {
    this.#reads.use(url)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reads[Symbol.asyncDispose]()
  }
}

/** As many as signatures of such callers, and some tenths of a core of PostgreSQL. */
export const questionsPerSecondMax = 500
