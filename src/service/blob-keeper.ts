import { XrpcError } from '../atproto/errors.ts'
import type { Cid } from '../atproto/cid.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Lru } from '../lib/lru.ts'
import { Turns } from '../lib/turns.ts'
import { type BlobKey, BlobMissing, type BlobStorage } from '../store/blob-storage.ts'
import type { TakedownStore } from '../store/takedown.ts'
import type { BlobsWorked, BlobWork } from '../store/actor-blobs.ts'
import type { CallActor } from './calls.ts'

interface Parts {
  readonly storage: BlobStorage
  readonly call: CallActor
  readonly takedowns: TakedownStore
  readonly log: Log
}

/**
 * Brings the bytes of blobs to where the rows say. Invariants:
 * - Rows decide. A row that says where bytes are is written after these are there; one without a
 *   record that names it is forgotten after its bytes are gone.
 * - One thing at a time is done about the bytes of a person.
 * - Whatever was not done, be it by a kill, shows in the rows and is done by the next round.
 *
 * For example: the last record that names a blob goes, and its bytes are removed. The same bytes
 * come anew before the row goes: it names a temporary place then, and stays. A record comes to name
 * it, and the bytes are moved, in a later turn, to the place that is free by then.
 */
export class BlobKeeper {
  readonly #parts: Parts
  readonly #turns = new Turns<Did>()
  /** Temporary bytes that no row needs, by blob; the sweep finds those that are forgotten here. */
  readonly #left = new Lru<string, readonly BlobKey[]>(leftMax)
  /** Those whose work is about to begin. */
  readonly #nudged = new Set<Did>()
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** To be called when records came to name blobs, or no longer do. */
  nudge(did: Did, requestId: string): void {
    if (this.#stopped || this.#nudged.has(did) || this.#nudged.size >= nudgedMax) return
    this.#nudged.add(did)
    const task = this.#tryTidy(did, requestId)
    this.#running = Promise.all([this.#running, task]).then(() => undefined)
  }

  /** Ends early what nudges began. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
  }

  async tidy(did: Did, requestId: string): Promise<void> {
    await this.#turns.run(did, () => this.#tidy(did, requestId))
  }

  /** Into quarantine or out of it, as the takedowns are now. */
  async place(did: Did, cid: Cid): Promise<void> {
    const { storage, takedowns } = this.#parts
    await this.#turns.run(did, async () => {
      if ((await takedowns.of(did)).blobs.includes(cid)) await storage.quarantine(did, cid)
      else await storage.restore(did, cid)
    })
  }

  /** Out of quarantine, before readers are let in again. */
  async restore(did: Did, cid: Cid): Promise<void> {
    await this.#turns.run(did, () => this.#parts.storage.restore(did, cid))
  }

  /**
   * Temporary bytes of a named blob that are at another place, too. Readers may be on their way to
   * them, so they go with the blob, or by the sweep.
   */
  leave(did: Did, cid: Cid, key: BlobKey): void {
    const name = `${did}/${cid}`
    const keys = new Set(this.#left.get(name)).add(key)
    this.#left.set(name, [...keys].slice(-leftOfBlobMax))
  }

  /** Removes all bytes of somebody who has left. */
  async erase(did: Did): Promise<void> {
    await this.#turns.run(did, () => this.#parts.storage.removeAll(did))
  }

  async #tryTidy(did: Did, requestId: string): Promise<void> {
    const { log } = this.#parts
    try {
      await this.#turns.run(did, async () => {
        this.#nudged.delete(did)
        await this.#tidy(did, requestId)
      })
    } catch (error) {
      // Whoever leaves meanwhile takes all of it along.
      if (error instanceof XrpcError && error.error === 'RepoNotFound') return
      log.error('blobs.untidied', { did, requestId, error })
    }
  }

  async #tidy(did: Did, requestId: string): Promise<void> {
    const { call } = this.#parts
    while (!this.#stopped) {
      const work = await call(did, requestId, { kind: 'blob-work' })
      if (work.moves.length + work.gone.length === 0) return
      const kept = await this.#keep(did, work.moves)
      await this.#remove(did, work.gone)
      await call(did, requestId, { kind: 'blob-worked', ...kept, gone: work.gone })
    }
  }

  /** @returns those whose bytes are at their permanent place or in quarantine, and the others */
  async #keep(did: Did, moves: BlobWork['moves']): Promise<Omit<BlobsWorked, 'gone'>> {
    const { storage, takedowns, log } = this.#parts
    const kept: BlobWork['moves'][number][] = []
    const lost: BlobWork['moves'][number][] = []
    for (const move of moves) {
      const { cid, tempKey } = move
      try {
        await storage.keep(did, tempKey, cid)
      } catch (error) {
        if (!(error instanceof BlobMissing)) throw error
        log.error('blob.bytes-missing', {
          did,
          cid,
          advice: 'a record names this blob, and its bytes are gone: its owner may upload it again',
        })
        lost.push(move)
        continue
      }
      if ((await takedowns.of(did)).blobs.includes(cid)) await storage.quarantine(did, cid)
      kept.push(move)
      this.leave(did, cid, tempKey)
    }
    return { moves: kept, lost }
  }

  async #remove(did: Did, gone: readonly Cid[]): Promise<void> {
    const { storage } = this.#parts
    for (const cid of gone) {
      await storage.remove({ kind: 'permanent', did, cid })
      await storage.remove({ kind: 'quarantined', did, cid })
      // Or whoever uploads, names and deletes over and over would fill the disk beside the quota.
      const name = `${did}/${cid}`
      for (const key of this.#left.get(name) ?? []) {
        await storage.remove({ kind: 'temporary', did, key })
      }
      this.#left.delete(name)
    }
  }
}

/** People whose bytes wait to be looked at; those of more are by the next sweep. */
const nudgedMax = 10_000
/** Blobs, of some 300 bytes each. */
const leftMax = 20_000
/** As many as one person uploads at once. */
const leftOfBlobMax = 10
