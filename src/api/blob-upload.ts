import { type Cid, cidForHash, cidToString } from '../atproto/cid.ts'
import { invalidRequest, overloaded, XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { BlobCall } from '../service/blob-calls.ts'
import type { BlobKeeper } from '../service/blob-keeper.ts'
import { beginningBytes, blobType } from '../service/blob-type.ts'
import type { BlobFacts } from '../store/actor-blobs.ts'
import type { BlobKey, BlobStorage, IncomingBlob } from '../store/blob-storage.ts'
import { repoTakendown } from './caller.ts'
import { activeMember, type WriteParts } from './repo-writes.ts'
import { checkLength, receiveBody } from './upload.ts'
import type { Answer, Call, Method } from './xrpc.ts'

export interface UploadParts extends Pick<WriteParts, 'enrollments' | 'takedowns' | 'call'> {
  readonly storage: BlobStorage
  readonly blobs: BlobKeeper
  readonly log: Log
  readonly config: { readonly blobBytesMax: number; readonly blobQuotaBytes: number }
  readonly pace?: Pace
}

/** Whoever brings less than `windowBytesMin` within `windowMs` is given up. */
interface Pace {
  readonly windowBytesMin: number
  readonly windowMs: number
}

/** How blobs come here. @see protocol.md, section 7 */
export function blobUploadMethods(parts: UploadParts): Record<string, Method> {
  const uploads = new BlobUploads(parts)
  const uploadBlob: Method = {
    audience: 'user',
    isLong: true,
    screen: async ({ request }) => uploads.screen(request),
    handle: (call) => uploads.upload(call),
  }
  return {
    'com.atproto.repo.uploadBlob': uploadBlob,
    'zone.stratos.repo.uploadBlob': uploadBlob,
  }
}

class BlobUploads {
  readonly #parts: UploadParts
  readonly #running = new Map<Did, number>()
  #count = 0

  constructor(parts: UploadParts) {
    this.#parts = parts
  }

  screen(request: Request): void {
    const encoding = request.headers.get('content-encoding') ?? 'identity'
    if (encoding.toLowerCase() !== 'identity') {
      throw invalidRequest('a blob must come as it is, without Content-Encoding')
    }
    checkLength(request, this.#parts.config.blobBytesMax)
  }

  async upload(call: Call): Promise<Answer> {
    const { caller, request } = call
    assert(caller.kind === 'user', 'the door lets people in and nobody else')
    const { did } = caller
    this.screen(request)
    await this.#checkAuthor(did)
    await this.#checkRoom(call, did)
    const own = this.#running.get(did) ?? 0
    if (own >= ofPersonMax) throw overloaded('you are uploading several blobs already')
    if (this.#count >= togetherMax) throw overloaded('too many uploads at once, try again')
    this.#running.set(did, own + 1)
    this.#count += 1
    try {
      return { body: { blob: await this.#receive(did, call) } }
    } finally {
      this.#count -= 1
      const left = (this.#running.get(did) ?? 1) - 1
      if (left === 0) this.#running.delete(did)
      else this.#running.set(did, left)
    }
  }

  /** @throws XrpcError 403 NotEnrolled, RepoTakendown */
  async #checkAuthor(did: Did): Promise<void> {
    const { enrollments, takedowns } = this.#parts
    await activeMember(did, enrollments)
    if ((await takedowns.of(did)).repo) throw repoTakendown()
  }

  /** Before all the sending would be vain. @throws XrpcError 400 QuotaExceeded */
  async #checkRoom({ request, requestId }: Call, did: Did): Promise<void> {
    const { call, config } = this.#parts
    const { usedBytes } = await call(did, requestId, { kind: 'blob-use' })
    const length = Number(request.headers.get('content-length') ?? 0)
    if (usedBytes + length <= config.blobQuotaBytes) return
    const message = `there is no room for ${length} bytes beside the ${usedBytes} of your blobs`
    throw new XrpcError(400, 'QuotaExceeded', message)
  }

  async #receive(did: Did, call: Call): Promise<object> {
    const incoming = await this.#parts.storage.receive(did)
    const facts = await this.#finish(did, incoming, call)
    return await this.#add(did, { key: incoming.key, facts }, call.requestId)
  }

  async #finish(did: Did, incoming: IncomingBlob, { request }: Call): Promise<BlobFacts> {
    try {
      const facts = await this.#take(incoming, request)
      // They were on their way for a while.
      await this.#checkAuthor(did)
      const { cid } = facts
      if ((await this.#parts.takedowns.of(did)).blobs.includes(cid)) throw blobTakendown(cid)
      await incoming.finish()
      return facts
    } catch (error) {
      await incoming.abort()
      throw error
    }
  }

  /** Hashed and written on their way, and never wholly in memory. */
  async #take(incoming: IncomingBlob, request: Request): Promise<BlobFacts> {
    const { config, pace = paceDefault } = this.#parts
    const { blobBytesMax: bytesMax } = config
    const hasher = new Bun.CryptoHasher('sha256')
    const beginning = new Uint8Array(beginningBytes)
    let size = 0
    const writing = new OneBehind()
    try {
      await receiveBody(request, { bytesMax, ...pace }, async (bytes) => {
        if (size < beginningBytes) beginning.set(bytes.subarray(0, beginningBytes - size), size)
        size += bytes.length
        // The disk is as slow as the network and the hash together.
        await writing.next(() => incoming.write(bytes))
        hasher.update(bytes)
      })
    } finally {
      await writing.end()
    }
    const said = Number(request.headers.get('content-length') ?? size)
    if (said !== size) throw invalidRequest('the body is not as long as its Content-Length says')
    const first = beginning.subarray(0, Math.min(size, beginningBytes))
    const mimeType = await blobType(first, request.headers.get('content-type'))
    return { cid: cidToString(cidForHash(hasher.digest())), mimeType, size }
  }

  async #add(did: Did, { key, facts }: Taken, requestId: string): Promise<object> {
    const { blobs, config } = this.#parts
    const uploaded = { ...facts, tempKey: key, uploadedAtMs: Date.now() }
    const added = await this.#addRow(did, requestId, {
      kind: 'add-blob',
      uploaded,
      quotaBytes: config.blobQuotaBytes,
    })
    const { place, left, isNamed } = added
    if (place === 'permanent') await this.#drop(did, key)
    if (left !== undefined && isNamed) blobs.leave(did, facts.cid, left)
    else if (left !== undefined) await this.#drop(did, left)
    if (isNamed) blobs.nudge(did, requestId)
    return { $type: 'blob', ref: { $link: facts.cid }, mimeType: added.mimeType, size: facts.size }
  }

  async #addRow(did: Did, requestId: string, ask: Extract<BlobCall, { kind: 'add-blob' }>) {
    try {
      return await this.#parts.call(did, requestId, ask)
    } catch (error) {
      // After a fault nobody knows whether a row needs these bytes: the sweep looks.
      const isRefused = error instanceof XrpcError && error.status !== 500
      if (isRefused) await this.#drop(did, ask.uploaded.tempKey)
      throw error
    }
  }

  /** Whatever comes of it, the upload is over: what is left the sweep finds. */
  async #drop(did: Did, key: BlobKey): Promise<void> {
    const { storage, log } = this.#parts
    try {
      await storage.remove({ kind: 'temporary', did, key })
    } catch (error) {
      log.warn('blob.not-removed', { did, error })
    }
  }
}

/** Runs tasks one after the other, and lets its caller go on while the last of them runs. */
class OneBehind {
  #running: Promise<void> = Promise.resolve()

  /** @throws what the task before failed with */
  async next(task: () => Promise<void>): Promise<void> {
    await this.#running
    this.#running = task()
    // Whoever comes next is told, or whoever waits for the end: until then it is nobody's fault.
    this.#running.catch(() => undefined)
  }

  async end(): Promise<void> {
    await this.#running
  }
}

interface Taken {
  readonly key: BlobKey
  readonly facts: BlobFacts
}

const ofPersonMax = 10
const togetherMax = 32
/** As other bodies: 16 KiB a second. The largest blob then holds one of the places for an hour. */
const paceDefault: Pace = { windowBytesMin: 480 * 1024, windowMs: 30_000 }

function blobTakendown(cid: Cid): XrpcError {
  return new XrpcError(400, 'BlobTakendown', `the blob ${cid} was taken down on this service`)
}
