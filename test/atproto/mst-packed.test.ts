import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import {
  type CidBytes,
  cidForCbor,
  cidToString,
  equalCids,
  parseCid,
} from '../../src/atproto/cid.ts'
import { MstError } from '../../src/atproto/mst-key.ts'
import { PackedMst } from '../../src/atproto/mst-packed.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { keysByHeight, linkTo, TreeBlocks } from './tree-blocks.ts'

type Entry = readonly [key: string, cid: CidBytes]

/** Of heights that a random choice would hardly bring, below which nodes without records hang. */
const highKeys = keysByHeight({ heightMax: 7, count: 8 })
const none = (_cid: CidBytes) => false
const keys = fc.uniqueArray(
  fc.oneof(
    fc.constantFrom(...highKeys),
    fc
      .tuple(fc.constantFrom('com.example.a', 'com.example.ab'), fc.stringMatching(/^[a-z]{1,4}$/))
      .map((parts) => parts.join('/')),
  ),
  { maxLength: 200, size: 'max' },
)

describe('a packed tree', () => {
  test('has the nodes of the tree in memory, and each record where it stands', () => {
    fc.assert(
      fc.property(keys, (some) => expectSame(some)),
      { numRuns: 80 },
    )
  })

  test.each([0, 1, 2, 5_000])('of %d records', (count) => {
    expectSame(Array.from({ length: count }, (_, index) => `com.example.a/${index}`))
  })

  test('is walked without what is below a known node, and goes on behind it', () => {
    const entries = entriesOf([...highKeys, ...Array.from({ length: 99 }, (_, at) => `a/${at}`)])
    const { tree } = packed(entries)
    const all = walked(tree, entries)
    const nodes = all.filter((step) => !step.includes('/'))
    for (const known of nodes) {
      const left = walked(tree, entries, (cid) => cidToString(cid) === known)
      // What is below it stands behind it, without a gap.
      const at = all.indexOf(known)
      const gap = all.length - left.length
      expect(left).toEqual([...all.slice(0, at), ...all.slice(at + gap)])
      const below = TreeBlocks.of(Mst.fromSorted(entries)).walk({ $link: parseCid(known) })
      expect(all.slice(at, at + gap)).toEqual(below)
    }
  })

  test('refuses keys that are none, or not in order, and has none of them', () => {
    const [entry] = entriesOf(['a/b'])
    if (entry === undefined) throw new Error('one key makes one entry')
    const tree = new PackedMst()
    tree.add(...entry)
    for (const bad of ['a/a', 'a/b', 'ab', 'a/é']) {
      expect(() => tree.add(bad, entry[1])).toThrow(MstError)
    }
    expect(equalCids(tree.finish(), Mst.fromSorted([entry]).rootCid())).toBeTrue()
    expect(tree.recordCids).toHaveLength(36)
  })

  test('tells what it takes, some 200 bytes a record, and gives it back', () => {
    const many = Array.from({ length: 20_000 }, (_, index) => `com.example.a/${100_000 + index}`)
    const { tree } = packed(entriesOf(many))
    expect(tree.heldBytes / many.length).toBeWithin(100, 300)
    tree[Symbol.dispose]()
    expect(tree.heldBytes).toBe(0)
  })
})

function expectSame(some: readonly string[]): void {
  const entries = entriesOf(some)
  const plain = Mst.fromSorted(entries)
  const { tree, root } = packed(entries)
  expect(equalCids(root, plain.rootCid())).toBeTrue()
  expect(walked(tree, entries)).toEqual(TreeBlocks.of(plain).walk(linkTo(root)))
  const blocks = [...tree.walk(none)].flatMap((step) => (typeof step === 'number' ? [] : [step]))
  expect(blocks.every(({ cid, bytes }) => equalCids(cid, cidForCbor(bytes)))).toBeTrue()
  for (const [index, [, cid]] of entries.entries()) {
    expect(equalCids(tree.recordCid(index), cid)).toBeTrue()
  }
  expect(tree.recordCids).toHaveLength(36 * entries.length)
}

/** Each key with a CID of its own. */
function entriesOf(some: readonly string[]): Entry[] {
  return some.toSorted().map((key) => [key, cidForCbor(Buffer.from(key))])
}

function packed(entries: readonly Entry[]): { tree: PackedMst; root: CidBytes } {
  const tree = new PackedMst()
  for (const [key, cid] of entries) tree.add(key, cid)
  return { tree, root: tree.finish() }
}

/** Nodes by their CIDs, records by their keys. */
function walked(tree: PackedMst, entries: readonly Entry[], known = none): string[] {
  return Array.from(tree.walk(known), (step) =>
    typeof step === 'number' ? (entries[step]?.[0] ?? 'none') : cidToString(step.cid),
  )
}
