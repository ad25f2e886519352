import { expect, test } from 'bun:test'
import { verifyProofs, verifyRepoCar } from '@atproto/repo'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import { assert } from '../../src/lib/assert.ts'
import { MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'
import { encodeCar } from '../../src/atproto/car.ts'
import { type CarIndex, indexCar } from '../../src/atproto/car-index.ts'
import { decode, encode } from '../../src/atproto/cbor.ts'
import { type CidBytes, cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { signCommit, verifyCommit } from '../../src/atproto/commit.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { walkTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { parseDid, parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { anyObject } from './arbitrary.ts'

const did = parseDid('did:plc:44ybard66vv44zksje25o7dz')
const key = SigningKey.generate()
const limits = { carBytesMax: 10_000_000, blockBytesMax: 1_000_000, blocksMax: 10_000 }
const records = fc.uniqueArray(
  fc.record({
    collection: fc.constantFrom('com.example.a', 'com.example.ab', 'zone.stratos.feed.post'),
    rkey: fc.stringMatching(/^[a-zA-Z0-9_~:-]{1,20}$/),
    value: anyObject,
  }),
  { maxLength: 15, selector: pathOf },
)

test('a repo of random records verifies with @atproto/repo, as does every proof', async () => {
  await fc.assert(
    fc.asyncProperty(records, async (records) => {
      const { tree, blocks } = repoOf(records)
      const rev = nextTid({ nowMs: Date.UTC(2026, 10, 23), clockId: 1 })
      const commit = signCommit({ did, data: tree.rootCid(), rev }, key)
      const nodes = [...tree.nodes()]
      const car = encodeCar(commit.cid, [commit, ...nodes, ...blocks.values()])

      const theirs = await verifyRepoCar(car, did, key.did)
      expect<string>(theirs.commit.rev).toBe(rev)
      const claims = theirs.creates.map(({ collection, rkey, cid }) => ({ collection, rkey, cid }))
      expect(claims.map(({ collection, rkey }) => `${collection}/${rkey}`).toSorted()).toEqual(
        [...tree.entries()].map(([key]) => key),
      )

      for (const claim of claims.slice(0, 5)) {
        const nodes = tree.proof(`${claim.collection}/${claim.rkey}`)
        const record = blocks.get(String(claim.cid))
        assert(record !== undefined, 'the record is ours')
        const proof = encodeCar(commit.cid, [commit, ...nodes, record])
        const { unverified } = await verifyProofs(proof, [claim], did, key.did)
        expect(unverified).toEqual([])
      }
      const absent = [{ collection: parseNsid('com.example.b'), rkey: parseRkey('b'), cid: null }]
      const proof = encodeCar(commit.cid, [commit, ...tree.proof('com.example.b/b')])
      expect((await verifyProofs(proof, absent, did, key.did)).unverified).toEqual([])
    }),
    { numRuns: 12 },
  )
}, 30_000)

test('a repo comes back from its CAR', () => {
  fc.assert(
    fc.property(records, (records) => {
      const { tree, blocks } = repoOf(records)
      const rev = nextTid({ nowMs: 0, clockId: 0 })
      const made = signCommit({ did, data: tree.rootCid(), rev }, key)
      const car = read(encodeCar(made.cid, [made, ...tree.nodes(), ...blocks.values()]))
      const commit = verifyCommit(car.rootBlock(), key.did)
      const leaves = [...walkTree(commit.data, (cid) => car.block(cid), { recordsMax: 100 })]
      expect(leaves).toEqual([...tree.entries()].map(([key, cid]) => ({ key, cid })))
      const values = new Map(records.map((record) => [pathOf(record), record.value]))
      for (const { key, cid } of leaves) {
        const value = values.get(key)
        assert(value !== undefined, 'the record is ours')
        expect(decode(car.block(cid) ?? new Uint8Array())).toEqual(value)
      }
    }),
    { numRuns: 12 },
  )
})

test('a commit of @atproto/repo is verified here', async () => {
  const { MemoryBlockstore, Repo, getFullRepo } = await import('@atproto/repo')
  const { Secp256k1Keypair } = await import('@atproto/crypto')
  const theirKey = await Secp256k1Keypair.create()
  const storage = new MemoryBlockstore()
  const repo = await Repo.create(storage, did, theirKey)
  const car = read(joined(await Array.fromAsync(getFullRepo(storage, repo.cid))))
  expect<string>(cidToString(car.root)).toBe(repo.cid.toString())
  const commit = verifyCommit(car.rootBlock(), theirKey.did())
  expect<string>(cidToString(commit.data)).toBe(CID.decode(Mst.empty.rootCid()).toString())
  expect<string>(commit.rev).toBe(repo.commit.rev)
})

type RecordList = typeof records extends fc.Arbitrary<infer List> ? List : never

function repoOf(records: RecordList): {
  tree: Mst
  blocks: Map<string, { cid: CidBytes; bytes: Uint8Array }>
} {
  let tree = Mst.empty
  const blocks = new Map<string, { cid: CidBytes; bytes: Uint8Array }>()
  for (const { collection, rkey, value } of records) {
    const bytes = encode(value)
    const cid = cidForCbor(bytes)
    tree = tree.set(pathOf({ collection, rkey }), cid)
    blocks.set(cidToString(cid), { cid, bytes })
  }
  return { tree, blocks }
}

function pathOf({ collection, rkey }: { collection: string; rkey: string }): string {
  return `${collection}/${rkey}`
}

function read(car: Uint8Array): CarIndex {
  return runSteps(indexCar(new MemorySource(car), limits))
}

function joined(parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts))
}
