import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Turns } from '../lib/turns.ts'
import { unreachable } from '../lib/assert.ts'
import type { BlobAnswers, BlobCall } from '../service/blob-calls.ts'
import type { ActorBlobs, BlobUse } from '../store/actor-blobs.ts'
import type { Actors } from './actors.ts'

/**
 * What one shard's actors know of their blobs; the bytes never come here. What changes rows runs in
 * the actor's turn, so that no record comes to name a blob between a look and what follows from it.
 */
export class Blobs {
  readonly #actors: Actors
  readonly #turns: Turns<Did>

  constructor(actors: Actors, turns: Turns<Did>) {
    this.#actors = actors
    this.#turns = turns
  }

  /** @throws XrpcError 400 QuotaExceeded */
  async answer(did: Did, call: BlobCall): Promise<BlobAnswers[keyof BlobAnswers]> {
    switch (call.kind) {
      case 'add-blob':
        return await this.#add(did, call)
      case 'blob': {
        const row = await this.#use(did, (blobs) => blobs.read(call.cid, call.view))
        return row === undefined ? { missing: true } : { row }
      }
      case 'blob-use':
        return await this.#use(did, (blobs) => blobs.use())
      case 'blobs':
        return { cids: await this.#use(did, (blobs) => blobs.list(call)) }
      case 'missing-blobs':
        return { missing: await this.#use(did, (blobs) => blobs.missing(call)) }
      case 'blob-work':
        return await this.#alone(did, (blobs) => blobs.work(worksMax))
      case 'blob-worked':
        await this.#alone(did, (blobs) => blobs.worked(call))
        return {}
      case 'expire-blobs':
        return { keys: await this.#alone(did, (blobs) => blobs.expire(call.beforeMs)) }
      default:
        return unreachable(call)
    }
  }

  async #add(
    did: Did,
    { uploaded, quotaBytes }: Extract<BlobCall, { kind: 'add-blob' }>,
  ): Promise<BlobAnswers['add-blob']> {
    return await this.#alone(did, async (blobs) => {
      const { cid, size, mimeType } = uploaded
      const found = await blobs.find(cid)
      if (found === undefined) {
        checkRoom(size, await blobs.useBeside(cid), quotaBytes)
        await blobs.put(uploaded)
        return { mimeType, place: 'new', isNamed: await blobs.isNamed(cid) }
      }
      const { named: isNamed, tempKey } = found
      // What records say of it stays as it was.
      const known = isNamed ? found.mimeType : mimeType
      if (tempKey === null) return { mimeType: known, place: 'permanent', isNamed }
      await blobs.put({ ...uploaded, mimeType: known })
      return { mimeType: known, place: 'new', left: tempKey, isNamed }
    })
  }

  async #alone<Result>(did: Did, task: (blobs: ActorBlobs) => Promise<Result>): Promise<Result> {
    return await this.#turns.run(did, () => this.#use(did, task))
  }

  async #use<Result>(did: Did, task: (blobs: ActorBlobs) => Promise<Result>): Promise<Result> {
    return await this.#actors.use(did, ({ store }) => task(store.blobs))
  }
}

function checkRoom(size: number, { usedBytes, temporary }: BlobUse, quotaBytes: number): void {
  if (usedBytes + size > quotaBytes) {
    const free = Math.max(0, quotaBytes - usedBytes)
    throw quotaExceeded(`there is room for ${free} bytes more of yours, and this blob has ${size}`)
  }
  if (temporary < temporaryMax) return
  throw quotaExceeded(`${temporary} blobs of yours wait for a record that names them`)
}

function quotaExceeded(message: string): XrpcError {
  return new XrpcError(400, 'QuotaExceeded', message)
}

/** Moves, and as many blobs that go, of one round. */
const worksMax = 100
/** Of one person: however small they are, each takes a file. */
const temporaryMax = 1_000
