import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { encode } from '../../src/atproto/cbor.ts'
import { type Cid, cidForCbor, cidToString, equalCids } from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import { keyHeight, MstError } from '../../src/atproto/mst-key.ts'
import { readMst } from '../../src/atproto/mst-read.ts'
import { Mst } from '../../src/atproto/mst.ts'

const recordsMax = 1000
/** The tree was read, and is not the only one of its records. */
const other = 'the nodes are not those'
const value = cidForCbor(new Uint8Array([0x01]))
const v = { $link: cidToString(value) }
/** Keys of the heights 0, 0, 0, 1 and 2. */
const [low, lowNext, lowLast, one, two] = ['a/0', 'a/1', 'a/4', 'a/3', 'a/18'] as const

/** Blocks made by hand, node by node, from the bottom. */
class Blocks extends Map<Cid, Uint8Array> {
  put(node: DataValue): { $link: Cid } {
    const bytes = encode(node)
    const cid = cidToString(cidForCbor(bytes))
    this.set(cid, bytes)
    return { $link: cid }
  }

  node(entries: readonly DataObject[], l: DataValue = null): { $link: Cid } {
    return this.put({ e: entries, l })
  }

  read(root: { $link: Cid }): Mst {
    return readMst({ root: root.$link, block: (cid) => this.get(cid), recordsMax })
  }
}

test('the blocks of these tests are a tree where nothing is wrong', () => {
  expect(keyHeight(one)).toBe(1)
  const blocks = new Blocks()
  const right = blocks.node([{ ...entry(one), t: blocks.node([entry(lowLast)]) }])
  const left = blocks.node([], blocks.node([entry(low), entry('1', 2)]))
  const read = blocks.read(blocks.node([{ ...entry(two), t: right }], left))
  expect([...read.entries()].map(([key]) => key)).toEqual([low, lowNext, two, one, lowLast])
})

describe('a tree is refused', () => {
  test.each<[string, string, (blocks: Blocks) => { $link: Cid }]>([
    ['without its root', 'missing', () => v],
    ['with a missing subtree', 'missing', (blocks) => blocks.node([entry(two)], v)],
    ['with a root that is no map', 'no map', (blocks) => blocks.put([1])],
    ['with a root without entries', 'no entries', (blocks) => blocks.put({ l: null })],
    ['with entries that are no list', 'no entries', (blocks) => blocks.put({ e: {}, l: null })],
    ['with an entry that is no map', 'no map', (blocks) => blocks.put({ e: [1], l: null })],
    ['with a left link that is a text', 'no map', (blocks) => blocks.put({ e: [], l: 'x' })],
    [
      'with a left link that is bytes',
      'link',
      (blocks) => blocks.put({ e: [], l: entry(low)['k'] ?? 0 }),
    ],
    ['without a left link', 'no map', (blocks) => blocks.put({ e: [entry(low)] })],
    ['with a member too many', other, (blocks) => blocks.put({ e: [entry(low)], l: null, m: 1 })],
    ['with an entry without value', 'entry', (blocks) => blocks.node([{ ...entry(low), v: null }])],
    ['with a text as key', 'no map', (blocks) => blocks.node([{ ...entry(low), k: low }])],
    ['with an entry with more', other, (blocks) => blocks.node([{ ...entry(low), m: 1 }])],
    ['with a key that is not allowed', 'a key must be', (blocks) => blocks.node([entry('a b')])],
    [
      'with keys in the wrong order',
      'sorted',
      (blocks) => blocks.node([entry(lowNext), entry(low)]),
    ],
    ['with a key twice', 'sorted', (blocks) => blocks.node([entry(low), entry(low)])],
    ['with a prefix not used', other, (blocks) => blocks.node([entry(low), entry(lowNext)])],
    ['with a prefix that is too long', other, (blocks) => blocks.node([entry(low, 5)])],
    ['with a prefix below zero', other, (blocks) => blocks.node([entry(low), entry('1', -1)])],
    ['with two heights in a node', other, (blocks) => blocks.node([entry(lowNext), entry('8', 3)])],
    [
      'with an empty subtree',
      'no record',
      (blocks) => blocks.node([entry(two)], blocks.node([], blocks.node([]))),
    ],
    ['with a root too high', other, (blocks) => blocks.node([], blocks.node([entry(low)]))],
    [
      'with a layer left out',
      other,
      (blocks) => blocks.node([{ ...entry(two), t: blocks.node([entry(lowLast)]) }]),
    ],
    [
      'with a subtree out of order',
      'sorted',
      (blocks) => blocks.node([entry(two)], blocks.node([entry(one)])),
    ],
    [
      'with one subtree twice',
      'sorted',
      (blocks) => {
        const twice = blocks.node([], blocks.node([entry(low)]))
        return blocks.node([{ ...entry(two), t: twice }], twice)
      },
    ],
    [
      'that is deeper than any',
      'deeper',
      (blocks) => {
        let node = blocks.node([entry(low)])
        for (let layer = 0; layer < 5000; layer++) node = blocks.node([], node)
        return node
      },
    ],
  ])('%s', (_, message, make) => {
    const blocks = new Blocks()
    const root = make(blocks)
    expect(() => blocks.read(root)).toThrow(MstError)
    expect(() => blocks.read(root)).toThrow(message)
  })

  test('with a block that is no DAG-CBOR', () => {
    const bytes = new Uint8Array([0xff])
    const root = cidToString(cidForCbor(bytes))
    expect(() => readMst({ root, block: () => bytes, recordsMax })).toThrow(MstError)
  })

  test('when its blocks go in a circle', () => {
    const bytes = encode({ e: [], l: v })
    const input = { root: v.$link, block: () => bytes, recordsMax }
    expect(() => readMst(input)).toThrow(MstError)
  })

  test('with more records than allowed', () => {
    const tree = grown(['a/a', 'a/b', 'a/c'])
    const input = { root: cidToString(tree.rootCid()), block: blockOf(tree) }
    expect(() => readMst({ ...input, recordsMax: 2 })).toThrow('more than 2')
    expect(readMst({ ...input, recordsMax: 3 }).size).toBe(3)
  })
})

test('any tree is read from its nodes', () => {
  const keys = fc.uniqueArray(fc.stringMatching(/^[a-c]\/[a-z]{1,3}$/), { maxLength: 60 })
  fc.assert(
    fc.property(keys, (keys) => {
      const tree = grown(keys)
      const read = readMst({ root: cidToString(tree.rootCid()), block: blockOf(tree), recordsMax })
      expect(equalCids(read.rootCid(), tree.rootCid())).toBeTrue()
      expect([...read.entries()]).toEqual([...tree.entries()])
    }),
  )
})

test('without any of its nodes no tree is read', () => {
  const tree = grown(Array.from({ length: 60 }, (_, at) => `a/${at}`))
  const block = blockOf(tree)
  const root = cidToString(tree.rootCid())
  for (const { cid } of tree.nodes()) {
    const missing = cidToString(cid)
    const without = (cid: Cid) => (cid === missing ? undefined : block(cid))
    expect(() => readMst({ root, block: without, recordsMax })).toThrow(missing)
  }
})

function entry(key: string, p = 0): DataObject {
  return { k: { $bytes: Buffer.from(key).toString('base64') }, p, t: null, v }
}

function grown(keys: readonly string[]): Mst {
  return keys.reduce((tree, key) => tree.set(key, value), Mst.empty)
}

function blockOf(tree: Mst): (cid: Cid) => Uint8Array | undefined {
  const blocks = new Map([...tree.nodes()].map(({ cid, bytes }) => [cidToString(cid), bytes]))
  return (cid) => blocks.get(cid)
}
