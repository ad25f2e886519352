import { describe, expect, test } from 'bun:test'
import * as dagCbor from '@ipld/dag-cbor'
import { verifyCommitSig } from '@atproto/repo'
import fc from 'fast-check'
import { encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidForRaw, cidToString, equalCids } from '../../src/atproto/cid.ts'
import { CommitError, decodeCommit, signCommit, verifyCommit } from '../../src/atproto/commit.ts'
import type { DataObject } from '../../src/atproto/data.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'

const key = SigningKey.generate()
const did = parseDid('did:plc:44ybard66vv44zksje25o7dz')
const rev = nextTid({ nowMs: Date.UTC(2026, 10, 23), clockId: 3 })
const data = Mst.empty.rootCid()
const commit = signCommit({ did, data, rev }, key)
const good: DataObject = {
  did,
  version: 3,
  data: { $link: cidToString(data) },
  rev,
  prev: null,
  sig: { $bytes: 'A'.repeat(86) },
}

describe('a commit of the wrong form is refused', () => {
  test.each<[string, DataObject]>([
    ['no map', { $bytes: '' }],
    ['no did', without('did')],
    ['a did that is none', { ...good, did: 'alice.example.com' }],
    ['no version', without('version')],
    ['version 2', { ...good, version: 2 }],
    ['a version in text', { ...good, version: '3' }],
    ['no data', without('data')],
    ['data of null', { ...good, data: null }],
    ['data in text', { ...good, data: cidToString(data) }],
    ['data of a blob', { ...good, data: { $link: cidToString(cidForRaw(new Uint8Array())) } }],
    ['no rev', without('rev')],
    ['a rev that is no TID', { ...good, rev: '2026' }],
    ['no prev', without('prev')],
    ['a prev of false', { ...good, prev: false }],
    ['no signature', without('sig')],
    ['a signature in text', { ...good, sig: 'A'.repeat(86) }],
    ['a signature of 63 bytes', { ...good, sig: { $bytes: 'A'.repeat(84) } }],
    ['a member too many', { ...good, more: 1 }],
  ])('%s', (_, value) => {
    expect(() => decodeCommit(encode(value))).toThrow(CommitError)
    expect(() => verifyCommit(encode(value), key.did)).toThrow(CommitError)
  })

  test('any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(() => decodeCommit(bytes)).toThrow(CommitError)
      }),
    )
  })
})

describe('a commit does not verify', () => {
  test('under another key', () => {
    expect(() => verifyCommit(commit.bytes, SigningKey.generate().did)).toThrow(CommitError)
  })

  test('when any byte was changed', () => {
    for (let at = 0; at < commit.bytes.length; at++) {
      const changed = commit.bytes.with(at, (commit.bytes[at] ?? 0) ^ 1)
      expect(() => verifyCommit(changed, key.did)).toThrow(CommitError)
    }
  })
})

test('a commit verifies under its key and has what it was made of', () => {
  const dids = [did, parseDid(`did:web:${'a'.repeat(300)}.example.com`), parseDid('did:a:b')]
  for (const did of dids) {
    const { cid, bytes } = signCommit({ did, data, rev }, key)
    const read = verifyCommit(bytes, key.did)
    expect([read.did, read.rev, read.prev, read.version]).toEqual([did, rev, null, 3])
    expect(equalCids(read.data, data)).toBeTrue()
    expect(equalCids(cid, cidForCbor(bytes))).toBeTrue()
  }
})

test('a commit is canonical and verifies with @atproto/repo', async () => {
  const value: Parameters<typeof verifyCommitSig>[0] = dagCbor.decode(commit.bytes)
  expect(Buffer.compare(dagCbor.encode(value), commit.bytes)).toBe(0)
  expect(await verifyCommitSig(value, key.did)).toBeTrue()
})

test('a commit of another service may have a prev', () => {
  const prev = cidToString(commit.cid)
  expect(decodeCommit(encode({ ...good, prev: { $link: prev } })).prev).toBe(prev)
})

function without(name: string): DataObject {
  return Object.fromEntries(Object.entries(good).filter(([key]) => key !== name))
}
