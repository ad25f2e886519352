import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { type CidBytes, cidForCbor, parseCidBytes } from '../../src/atproto/cid.ts'
import { Repeated } from '../../src/bulk/repeated.ts'

test('of each content the first is the first, and no other', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20), { maxLength: 60 }), (contents) => {
      const cids = contents.map((content) => cidForCbor(new Uint8Array([content])))
      const found = firstsOf(cids)
      expect(found).toEqual(contents.map((content, at) => contents.indexOf(content) === at))
    }),
  )
})

test('contents whose hashes are alike where they are compared are still two', () => {
  const cid = cidForCbor(new Uint8Array([1]))
  const alike = parseCidBytes(cid.with(20, (cid[20] ?? 0) ^ 1))
  expect(firstsOf([cid, alike, cid, alike])).toEqual([true, true, false, false])
  // A record that its reader does not get is not asked for.
  const repeated = new Repeated(Buffer.concat([cid, alike, cid]))
  expect(repeated.isFirst(alike)).toBeTrue()
  expect(repeated.isFirst(cid)).toBeTrue()
  expect(repeated.isFirst(cid)).toBeFalse()
})

function firstsOf(cids: readonly CidBytes[]): boolean[] {
  const repeated = new Repeated(Buffer.concat(cids))
  return cids.map((cid) => repeated.isFirst(cid))
}
