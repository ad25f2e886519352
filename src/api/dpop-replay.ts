import type { Did } from '../atproto/syntax.ts'

export interface UsedProof {
  /** Whose proof it is, as proven by the token beside it. */
  readonly did: Did
  /** Strangers to this service share a smaller room than its members. */
  readonly isMember: boolean
  /** What makes it the same proof. */
  readonly digest: string
  /** From when on it no longer counts; the same each time that this proof comes. */
  readonly expiresAtMs: number
}

/**
 * Proofs that were used up, for as long as they would still count. Nothing is forgotten earlier:
 * where there is no room the next proof has to wait.
 *
 * Only who proved who they are takes up room, and nobody more than their share: so nobody can fill
 * it for others but by many people's tokens, and strangers not for members at all.
 */
export class UsedProofs {
  /** By the end of the span of time in which the proofs expire: whole spans are forgotten. */
  readonly #spans = new Map<number, Span>()
  readonly #counts = { members: 0, strangers: 0 }

  take({ did, isMember, digest, expiresAtMs }: UsedProof, nowMs: number): Outcome {
    this.#forget(nowMs)
    const end = Math.ceil(expiresAtMs / spanMs) * spanMs
    const span = this.#spans.get(end) ?? { byDid: new Map(), members: 0, strangers: 0 }
    const own = span.byDid.get(did) ?? new Set()
    if (own.has(digest)) return 'used'
    const kind = isMember ? 'members' : 'strangers'
    if (own.size >= ofPersonMax || this.#counts[kind] >= countsMax[kind]) return 'full'
    own.add(digest)
    span.byDid.set(did, own)
    span[kind] += 1
    this.#counts[kind] += 1
    this.#spans.set(end, span)
    return 'taken'
  }

  #forget(nowMs: number): void {
    // There are some twenty at most: the time that a proof counts, in spans.
    for (const [end, { members, strangers }] of this.#spans) {
      if (end > nowMs) continue
      this.#spans.delete(end)
      this.#counts.members -= members
      this.#counts.strangers -= strangers
    }
  }
}

type Outcome = 'taken' | 'used' | 'full'

interface Span {
  readonly byDid: Map<Did, Set<string>>
  members: number
  strangers: number
}

const spanMs = 30_000
/** In one span: a client would have to call a hundred times a second. */
const ofPersonMax = 10_000
/** Some 120 bytes each: 60 MB when both rooms are full. */
const countsMax = { members: 400_000, strangers: 100_000 } as const
