import { cidToBytes } from '../atproto/cid.ts'
import {
  BlobCut,
  type BlobPlace,
  type ListedBlob,
  makeBlobKey,
  type MovableBlobs,
  type StoredBlob,
} from '../store/blob-storage.ts'

/** How many blobs. */
export interface Moved {
  readonly copied: number
  readonly copiedBytes: number
  readonly present: number
  readonly failed: number
  readonly unfinished: number
  readonly strangers: number
  readonly extra: number
}

/**
 * Copies all blobs of one storage into another. A blob gets its final name at the target only after
 * what lies there was read back, so that a name there means a good copy, whenever this is cut off.
 */
export class BlobMove {
  readonly #from: MovableBlobs
  readonly #to: MovableBlobs
  readonly #tell: (text: string) => void
  readonly #startedMs = performance.now()
  #toldMs = performance.now()
  readonly #count = {
    copied: 0,
    copiedBytes: 0,
    present: 0,
    failed: 0,
    unfinished: 0,
    strangers: 0,
    extra: 0,
  }

  constructor(parts: {
    readonly from: MovableBlobs
    readonly to: MovableBlobs
    readonly tell: (text: string) => void
  }) {
    this.#from = parts.from
    this.#to = parts.to
    this.#tell = parts.tell
  }

  /** @param extra what is done with blobs that the target alone has */
  async run(extra: 'report' | 'remove'): Promise<Moved> {
    for (const kind of kinds) {
      await severalAtOnce(this.#from.places(kind), async (listed) => await this.#moveOne(listed))
    }
    for (const kind of kinds) {
      await severalAtOnce(this.#to.places(kind), async ({ place }) => {
        if ((await sizeAt(this.#from, place)) !== undefined) return
        this.#count.extra += 1
        if (extra === 'remove') await this.#to.remove(place)
        else if (this.#count.extra <= namedMax) this.#tell(`only at the target: ${named(place)}`)
      })
    }
    for await (const name of this.#from.strangers()) {
      this.#count.strangers += 1
      this.#tell(`unknown, not copied: ${name}`)
    }
    return this.#count
  }

  async #moveOne({ place }: ListedBlob): Promise<void> {
    this.#tellProgress()
    const found = await this.#from.read(place)
    if (found === undefined) {
      this.#count.unfinished += 1
      return
    }
    if (await this.#isThere(place, found.bytes)) {
      if (found.body instanceof ReadableStream) await found.body.cancel()
      this.#count.present += 1
      return
    }
    try {
      await this.#copy(place, found)
      this.#count.copied += 1
      this.#count.copiedBytes += found.bytes
    } catch (error) {
      if (!(error instanceof BlobCut) && !(error instanceof WrongBytes)) throw error
      this.#count.failed += 1
      this.#tell(`not copied: ${named(place)}: ${error.message}`)
    }
  }

  async #isThere(place: BlobPlace, bytes: number): Promise<boolean> {
    if (place.kind !== 'temporary') {
      const { did, cid, kind } = place
      const isHidden = kind === 'quarantined'
      const other = { did, cid, kind: isHidden ? 'permanent' : 'quarantined' } as const
      // Taken down or given back since the last run.
      if ((await sizeAt(this.#to, other)) === bytes) {
        await (isHidden ? this.#to.quarantine(did, cid) : this.#to.restore(did, cid))
      }
    }
    return (await sizeAt(this.#to, place)) === bytes
  }

  async #copy(place: BlobPlace, found: StoredBlob): Promise<void> {
    const { did } = place
    const key = place.kind === 'temporary' ? place.key : makeBlobKey()
    const incoming = await this.#to.receiveAs(did, key)
    try {
      const hash = await hashOf(found, async (piece) => await incoming.write(piece))
      if (
        place.kind !== 'temporary' &&
        !hash.equals(cidToBytes(place.cid).subarray(-hash.length))
      ) {
        throw new WrongBytes('its bytes are not what its CID says')
      }
      await incoming.finish()
      const copy = await this.#to.read({ kind: 'temporary', did, key })
      if (copy === undefined || !hash.equals(await hashOf(copy))) {
        throw new WrongBytes('the copy is not what was sent')
      }
    } catch (error) {
      await incoming.abort()
      throw error
    }
    if (place.kind === 'temporary') return
    await this.#to.keep(did, key, place.cid)
    if (place.kind === 'quarantined') await this.#to.quarantine(did, place.cid)
    await this.#to.remove({ kind: 'temporary', did, key })
  }

  #tellProgress(): void {
    const nowMs = performance.now()
    if (nowMs - this.#toldMs < progressEveryMs) return
    this.#toldMs = nowMs
    const { copied, copiedBytes, present } = this.#count
    const megabytes = copiedBytes / 1e6
    const rate = megabytes / ((nowMs - this.#startedMs) / 1000)
    const text = `copied ${copied} blobs, ${megabytes.toFixed(0)} MB, ${rate.toFixed(1)} MB/s`
    this.#tell(`${text}; there already: ${present}`)
  }
}

class WrongBytes extends Error {
  override readonly name = 'WrongBytes'
}

/** In this order a blob that is taken down meanwhile is found in one place or the other. */
const kinds = ['permanent', 'quarantined', 'temporary'] as const
/** The rest is counted. */
const namedMax = 20
/** A bucket answers late rather than slowly; each upload holds up to 25 MiB. */
const atOnceMax = 4
const progressEveryMs = 5000

/** @throws what the first that failed threw, when the others have ended */
async function severalAtOnce<Item>(
  items: AsyncIterable<Item>,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const going = new Set<Promise<void>>()
  try {
    for await (const item of items) {
      const one = work(item)
      going.add(one)
      const forget = () => going.delete(one)
      one.then(forget, () => undefined)
      if (going.size >= atOnceMax) await Promise.race(going)
    }
    await Promise.all(going)
  } finally {
    await Promise.allSettled(going)
  }
}

async function sizeAt(blobs: MovableBlobs, place: BlobPlace): Promise<number | undefined> {
  return (await blobs.read(place, { start: 0, end: 0 }))?.bytes
}

async function hashOf(
  { body }: StoredBlob,
  each: (piece: Uint8Array) => Promise<void> = async () => undefined,
): Promise<Buffer> {
  const hash = new Bun.CryptoHasher('sha256')
  const stream: ReadableStream<Uint8Array> = body instanceof Blob ? body.stream() : body
  for await (const piece of stream) {
    hash.update(piece)
    await each(piece)
  }
  return hash.digest()
}

function named(place: BlobPlace): string {
  const last = place.kind === 'temporary' ? place.key : place.cid
  return `${place.kind} ${place.did}/${last}`
}
