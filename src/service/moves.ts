import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Lru } from '../lib/lru.ts'
import { DidNotResolved, type Identities, PdsEndpointNotFound } from '../remote/identity.ts'
import type { ServiceStore } from '../store/service.ts'

/**
 * Keeps enrollments at the PDS that their DID document names, whenever one was read for whatever
 * reason: to be given to `Identities` as `onResolved`. Whoever reads a document learns nothing of a
 * failure here.
 */
export function followMoves(parts: {
  readonly store: ServiceStore
  /** Looks at whether the person may stay: some are admitted by their PDS. */
  readonly moved: (did: Did) => Promise<void>
  readonly log: Log
}): (did: Did, pdsEndpoint: string) => void {
  const { store, moved, log } = parts
  const follow = async (did: Did, to: string): Promise<void> => {
    try {
      const from = await store.movedTo(did, to)
      if (from === undefined) return
      log.info('enrollment.moved', { did, from, to })
      await moved(did)
    } catch (error) {
      log.error('enrollment.move.not-stored', { did, error })
    }
  }
  return (did, pdsEndpoint) => void follow(did, pdsEndpoint)
}

/** Looks anew at where accounts live whose PDS gives trouble: they may have left it. */
export class Troubles {
  readonly #identities: Identities
  readonly #now: () => number
  readonly #log: Log
  readonly #lookedAtMs = new Lru<Did, number>(rememberedMax)
  readonly #looking = new Set<Did>()

  constructor(parts: {
    readonly identities: Identities
    readonly now: () => number
    readonly log: Log
  }) {
    this.#identities = parts.identities
    this.#now = parts.now
    this.#log = parts.log
  }

  /** Soon, unless that was done a moment ago, or too many others are looked at; never fails. */
  troubled(did: Did): void {
    const before = this.#lookedAtMs.get(did) ?? -Infinity
    if (this.#now() - before < everyMs || this.#looking.size >= atOnceMax) return
    this.#lookedAtMs.set(did, this.#now())
    this.#looking.add(did)
    void this.#look(did)
  }

  async #look(did: Did): Promise<void> {
    try {
      await this.#identities.pdsEndpoint(did, { fresh: true })
    } catch (error) {
      const known = error instanceof DidNotResolved || error instanceof PdsEndpointNotFound
      this.#log[known ? 'info' : 'error']('enrollment.move.not-known', { did, error })
    } finally {
      this.#looking.delete(did)
    }
  }
}

/** Retries are more frequent; a PDS that is down costs the directory no more than this. */
const everyMs = 5 * 60_000
/** A part of what the directory bears; who is left out is looked at after another try. */
const atOnceMax = 8
/** Some 100 bytes each. */
const rememberedMax = 10_000
