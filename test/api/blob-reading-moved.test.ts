import { afterAll, beforeAll, beforeEach, afterEach, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BlobContent } from '../../src/api/blob-content.ts'
import type { Reader } from '../../src/api/caller.ts'
import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { createLog } from '../../src/lib/log.ts'
import { Delivering, type Person } from '../service/delivering.ts'
import { post, serviceDid } from '../service/posts.ts'
import { received, some } from '../store/blobs.ts'
import { failureOf } from '../kit/wait.ts'

const size = 1_000
const notFound = { status: 404, error: 'BlobNotFound' }

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'stratos-test-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let world: Delivering
let alice: Person
let content: BlobContent
let bytes: Uint8Array
let cid: Cid
/** What happens between the look at the rows and the one at the bytes, once. */
let meanwhile: () => Promise<unknown>
const log: string[] = []
beforeEach(async () => {
  world = await Delivering.open(join(folder, crypto.randomUUID()))
  alice = await world.person()
  meanwhile = async () => undefined
  log.length = 0
  content = new BlobContent({
    enrollments: world.enrollments(ServiceKey.generate(), { serviceDid }),
    takedowns: world.takedowns,
    call: world.call,
    log: createLog('info', (line) => void log.push(line)),
    storage: {
      read: async (place, range) => {
        const now = meanwhile
        meanwhile = async () => undefined
        await now()
        return await world.storage.read(place, range)
      },
    },
  })
  bytes = some(size)
  cid = cidToString(cidForRaw(bytes))
  const { key: tempKey } = await received(world.storage, alice.did, bytes)
  const uploaded = { cid, mimeType: 'image/png', size, tempKey, uploadedAtMs: Date.now() }
  const add = { kind: 'add-blob', uploaded, quotaBytes: size } as const
  await world.call(alice.did, 'test', add)
  const picture = { $type: 'blob', ref: { $link: cid }, mimeType: 'image/png', size }
  await alice.actor.create('post', { record: post({ picture }) })
  await forget()
})
afterEach(async () => {
  await world[Symbol.asyncDispose]()
})

/** As the sweep does when they are old. */
async function forget(): Promise<void> {
  for await (const { place } of world.storage.places('temporary')) {
    if (await isMoved()) await world.storage.remove(place)
  }
}

async function isMoved(): Promise<boolean> {
  const found = await world.call(alice.did, 'test', { kind: 'blob', cid, view: 'all' })
  return 'row' in found && found.row.tempKey === null
}

async function settle(): Promise<void> {
  await world.blobs.tidy(alice.did, 'test')
  await forget()
}

const owner = (): Reader => ({ kind: 'user', did: alice.did })
const admin: Reader = { kind: 'admin' }

async function read(caller: Reader, headers: Readonly<Record<string, string>> = {}) {
  const request = new Request('http://localhost/', { headers })
  const ask = { caller, asked: { did: alice.did, cid }, requestId: 'test' }
  const { body } = await content.answer(request, ask)
  return await new Response(body.body).bytes()
}

async function takeDown(): Promise<void> {
  const subject = { kind: 'blob', did: alice.did, cid } as const
  await world.takedowns.apply(subject, { ref: undefined, nowMs: Date.now() })
}

test('bytes that are brought to their place while they are asked for are found there', async () => {
  meanwhile = settle
  expect(await read(owner())).toEqual(new Uint8Array(bytes))
  expect(await isMoved()).toBeTrue()
  expect(log).toEqual([])
})

test('a blob whose record goes while it is asked for is not there', async () => {
  await settle()
  meanwhile = async () => {
    await alice.remove('post')
    await settle()
  }
  expect(await failureOf(read(owner()))).toMatchObject(notFound)
  expect(log).toEqual([])
})

test('a blob that is taken down while it is asked for is withheld', async () => {
  await settle()
  meanwhile = async () => {
    await takeDown()
    await world.blobs.place(alice.did, cid)
  }
  expect(await failureOf(read(owner()))).toMatchObject({ status: 403, error: 'BlobTakendown' })
  expect(log).toEqual([])
  meanwhile = () => world.blobs.restore(alice.did, cid)
  expect(await read(admin)).toEqual(new Uint8Array(bytes))
})

test('the operator reads one whose bytes are not in quarantine yet', async () => {
  await settle()
  await takeDown()
  expect(await read(admin)).toEqual(new Uint8Array(bytes))
  expect(await failureOf(read(owner()))).toMatchObject({ status: 403 })
})

test('of somebody who leaves meanwhile there is nothing', async () => {
  world.seams.call = (pass) => async (did, requestId, call) => {
    if (call.kind === 'blob') await pass(did, 'test', { kind: 'leave' })
    return await pass(did, requestId, call)
  }
  expect(await failureOf(read(owner()))).toMatchObject(notFound)
})

test.each<[string, () => Promise<void>]>([
  ['gone', () => world.storage.remove({ kind: 'permanent', did: alice.did, cid })],
  [
    'shorter',
    async () => truncateSync(join(world.house.dataDir, 'blobs', alice.did, cid), size - 1),
  ],
])('bytes that are %s are told to the operator only', async (_, lose) => {
  await settle()
  await lose()
  for (const headers of [{}, { range: `bytes=-1` }, { range: 'bytes=0-0' }]) {
    log.length = 0
    expect(await failureOf(read(owner(), headers))).toMatchObject(notFound)
    expect(log).toHaveLength(1)
    expect(log[0]).toContain('blob.bytes-missing')
  }
})
