import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { blobUploadMethods, type UploadParts } from '../../src/api/blob-upload.ts'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { XrpcError } from '../../src/atproto/errors.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import type { Enrollments } from '../../src/service/enrollment.ts'
import { keptBytes, noBytes } from '../kit/blob-bytes.ts'
import { heldBytes } from '../kit/held.ts'
import { failureOf } from '../kit/wait.ts'
import { Delivering } from '../service/delivering.ts'
import { some } from '../store/blobs.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { uploadNsid } from './blob-uploaders.ts'

const folder = temporaryFolder()
const key = ServiceKey.generate()
const cut = new Error('the disk does not answer')
let world: Delivering
let enrollments: Enrollments
let alice: Did
/** Steps in before each piece of a body. */
let beforePiece: (index: number) => Promise<void>

beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  enrollments = world.enrollments(key)
  alice = (await world.person()).did
  beforePiece = async () => undefined
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

describe('nothing is kept of an upload', () => {
  test.each([
    ['that brings too little at a time', 1_000, 2],
    ['that stops coming', 1, 1],
  ])('%s', async (_, windowBytesMin, pieces) => {
    beforePiece = async (index) => {
      if (index >= pieces) await new Promise(() => undefined)
    }
    const pace = { windowBytesMin, windowMs: 25 }
    const failure = await failureOf(upload([some(4), some(4), some(4)], { pace }))
    expect(failure).toMatchObject({ status: 408, error: 'RequestTimeout' })
    expect(await bytes()).toEqual(noBytes)
  })

  test('that another length was said of', async () => {
    const headers = { 'content-length': '5' }
    const failure = await failureOf(upload([some(4)], { headers }))
    expect(failure).toMatchObject({ status: 400, error: 'InvalidRequest' })
    expect(await bytes()).toEqual(noBytes)
  })

  test('whose sender leaves meanwhile', async () => {
    beforePiece = async (index) => {
      if (index === 1) await enrollments.unenroll(alice, 'test')
    }
    const failure = await failureOf(upload([some(300_000), some(300_000)]))
    expect(failure).toMatchObject({ status: 403, error: 'NotEnrolled' })
    expect(await bytes()).toEqual(noBytes)
  })

  test('whose sender has left when all of it is there', async () => {
    world.seams.call = (pass) => async (did, requestId, call) => {
      if (call.kind === 'add-blob') {
        world.seams.call = (next) => next
        await enrollments.unenroll(alice, 'test')
      }
      return await pass(did, requestId, call)
    }
    const failure = await failureOf(upload([some(10)]))
    expect(failure).toMatchObject({ status: 404, error: 'RepoNotFound' })
    expect(await bytes()).toEqual(noBytes)
  })

  test('whose repo is taken down meanwhile', async () => {
    beforePiece = async (index) => {
      if (index === 0) return
      const applied = { ref: undefined, nowMs: 0 }
      await world.takedowns.apply({ kind: 'repo', did: alice }, applied)
    }
    const failure = await failureOf(upload([some(4), some(4)]))
    expect(failure).toMatchObject({ status: 403, error: 'RepoTakendown' })
    expect(await bytes()).toEqual(noBytes)
  })

  test('that is taken down while it comes', async () => {
    const [first, second] = [some(4), some(4)]
    const cid = cidToString(cidForRaw(Buffer.concat([first, second])))
    beforePiece = async (index) => {
      if (index === 0) return
      const applied = { ref: undefined, nowMs: 0 }
      await world.takedowns.apply({ kind: 'blob', did: alice, cid }, applied)
    }
    const failure = await failureOf(upload([first, second]))
    expect(failure).toMatchObject({ status: 400, error: 'BlobTakendown' })
    expect(await bytes()).toEqual(noBytes)
  })

  test.each(['write', 'finish'] as const)('where %s fails', async (step) => {
    const { storage } = world
    const receive = storage.receive.bind(storage)
    storage.receive = async (did) => {
      const incoming = await receive(did)
      incoming[step] = () => Promise.reject(cut)
      return incoming
    }
    expect(await failureOf(upload([some(400_000)]))).toBe(cut)
    expect(await bytes()).toEqual(noBytes)
    storage.receive = receive
    await upload([some(400_000)])
  })

  test('that finds no room in the end', async () => {
    const failure = await failureOf(upload([some(600), some(600)], { quotaBytes: 1_000 }))
    expect(failure).toMatchObject({ status: 400, error: 'QuotaExceeded' })
    expect(await bytes()).toEqual(noBytes)
  })
})

describe('kept are bytes', () => {
  test('that a row may need, after a fault that says nothing of it', async () => {
    world.seams.call = (pass) => async (did, requestId, call) => {
      const answer = await pass(did, requestId, call)
      if (call.kind === 'add-blob') throw new XrpcError(500, 'InternalServerError', '')
      return answer
    }
    expect(await failureOf(upload([some(10)]))).toMatchObject({ status: 500 })
    expect((await bytes()).temporary).toHaveLength(1)
    expect((await use()).temporary).toBe(1)
  })

  test('though earlier ones of the same cannot be removed', async () => {
    const same = some(1_000)
    const first = await upload([same])
    const remove = world.storage.remove.bind(world.storage)
    world.storage.remove = () => Promise.reject(cut)
    expect(await upload([same])).toEqual(first)
    expect(await use()).toEqual({ usedBytes: 1_000, temporary: 1 })
    world.storage.remove = remove
    expect((await bytes()).temporary).toHaveLength(2)
    await upload([same])
    expect((await bytes()).temporary).toHaveLength(2)
  })
})

test('the same bytes again are kept once', async () => {
  const same = some(100_000)
  const answers = await Promise.all(Array.from({ length: 10 }, () => upload([same])))
  expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
  expect((await bytes()).temporary).toHaveLength(1)
  expect(await use()).toEqual({ usedBytes: 100_000, temporary: 1 })
})

test('memory does not grow with what comes', async () => {
  const piece = some(65_536)
  const before = heldBytes()
  let most = 0
  beforePiece = async (index) => {
    if (index % 200 === 199) most = Math.max(most, heldBytes() - before)
  }
  await upload(Array.from({ length: 800 }, () => piece))
  expect(most).toBeLessThan(20_000_000)
})

interface Over {
  readonly pace?: UploadParts['pace']
  readonly headers?: Readonly<Record<string, string>>
  readonly quotaBytes?: number
}

async function upload(pieces: readonly Uint8Array[], over: Over = {}): Promise<unknown> {
  const { takedowns, storage, blobs, call } = world
  const { pace, headers = {}, quotaBytes = 100_000_000 } = over
  const method = blobUploadMethods({
    enrollments,
    takedowns,
    call,
    storage,
    blobs,
    log: createLog('silent', () => undefined),
    config: { blobBytesMax: 60_000_000, blobQuotaBytes: quotaBytes },
    ...(pace === undefined ? {} : { pace }),
  })[uploadNsid]
  const body = new ReadableStream<Uint8Array>(new Pieces(pieces), { highWaterMark: 0 })
  const request = new Request('http://localhost', { method: 'POST', body, headers })
  const answer = await method?.handle({
    request,
    caller: { kind: 'user', did: alice, by: 'service-auth' },
    params: {},
    input: {},
    requestId: 'test',
    upgrade: () => false,
  })
  return answer?.body
}

/** A body whose pieces come when they are wanted. */
class Pieces {
  readonly #pieces: readonly Uint8Array[]
  #index = 0

  constructor(pieces: readonly Uint8Array[]) {
    this.#pieces = pieces
  }

  async pull(controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> {
    const index = this.#index++
    const piece = this.#pieces[index]
    if (piece === undefined) return controller.close()
    await beforePiece(index)
    controller.enqueue(piece)
  }
}

function bytes() {
  return keptBytes(world.storage, alice)
}

function use() {
  return world.house.pool.call(alice, 'test', { kind: 'blob-use' })
}
