import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { BlobKey, BlobStorage } from '../store/blob-storage.ts'
import type { DepartureStore } from '../store/departure.ts'
import type { BlobKeeper } from './blob-keeper.ts'
import type { CallActor } from './calls.ts'
import type { Enrollments } from './enrollment.ts'

interface Parts {
  readonly storage: BlobStorage
  readonly blobs: BlobKeeper
  readonly call: CallActor
  readonly enrollments: Enrollments
  readonly departures: DepartureStore
  readonly now: () => number
  readonly log: Log
}

/** Finds the bytes that nobody needs, and the work that a kill or a full disk left undone. */
export class BlobSweep {
  readonly #parts: Parts
  #lastMs = -Infinity

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Goes over everybody who has bytes here, unless that was done within the hour. */
  async run(stopped: () => boolean): Promise<void> {
    const { storage, now } = this.#parts
    if (now() - this.#lastMs < everyMs) return
    this.#lastMs = now()
    for await (const did of storage.dids()) {
      if (stopped()) return
      await this.#attempt(did, () => this.#look(did))
    }
    await this.#sweepTemporary(stopped)
  }

  async #look(did: Did): Promise<void> {
    const { blobs, enrollments, departures, log } = this.#parts
    if ((await enrollments.member(did)) !== undefined) {
      await this.#expire(did)
      return await blobs.tidy(did, requestId)
    }
    await enrollments.inTurn(did, async () => {
      if ((await enrollments.member(did)) !== undefined) return
      if ((await departures.departed(did)) === undefined) {
        // The service's database was lost or is an old copy: nothing is removed.
        log.error('blobs.of-nobody', { did, advice: 'restore service.sqlite from a backup' })
        return
      }
      await blobs.erase(did)
    })
  }

  /** What is at a temporary place and has been there for longer than anything needs it. */
  async #sweepTemporary(stopped: () => boolean): Promise<void> {
    const { storage, now, log } = this.#parts
    let known: { readonly did: Did; readonly needs: (key: BlobKey) => boolean } | undefined
    let removed = 0
    for await (const { place, writtenAtMs } of storage.places('temporary')) {
      if (stopped()) return
      if (place.kind !== 'temporary' || writtenAtMs > now() - uploadMsMax) continue
      const { did, key } = place
      await this.#attempt(did, async () => {
        if (known?.did !== did) known = { did, needs: await this.#needs(did) }
        if (known.needs(key)) return
        await storage.remove(place)
        removed += 1
      })
    }
    if (removed > 0) log.info('blobs.swept', { removed })
  }

  /** Whether a temporary place is needed by a row; all of somebody who is unknown may be. */
  async #needs(did: Did): Promise<(key: BlobKey) => boolean> {
    const { enrollments, departures } = this.#parts
    if ((await enrollments.member(did)) !== undefined) {
      const keys = new Set(await this.#expire(did))
      return (key) => keys.has(key)
    }
    const hasLeft = (await departures.departed(did)) !== undefined
    return () => !hasLeft
  }

  async #expire(did: Did): Promise<readonly BlobKey[]> {
    const { call, now } = this.#parts
    const ask = { kind: 'expire-blobs', beforeMs: now() - temporaryMsMax } as const
    return (await call(did, requestId, ask)).keys
  }

  /** What is broken of one person must not keep the rest. */
  async #attempt(did: Did, task: () => Promise<void>): Promise<void> {
    try {
      await task()
    } catch (error) {
      this.#parts.log.error('blobs.sweep-failed', { did, error })
    }
  }
}

const requestId = 'background'
const everyMs = 3_600_000
/** So long a blob waits for a record. @see protocol.md, section 7 */
const temporaryMsMax = 24 * 3_600_000
/** What was last written so long ago is no upload under way, and nobody is reading it from there. */
const uploadMsMax = 3_600_000
