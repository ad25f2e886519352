import { describe, expect, test } from 'bun:test'
import { MemoryBlockstore, MST } from '@atproto/repo'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import { unreachable } from '../../src/lib/assert.ts'
import { encode } from '../../src/atproto/cbor.ts'
import {
  type Cid,
  type CidBytes,
  cidForCbor,
  cidForRaw,
  equalCids,
  parseCidBytes,
} from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import { keyHeight, MstError } from '../../src/atproto/mst-key.ts'
import type { MstLeaf } from '../../src/atproto/mst-node.ts'
import { type BlockOf, walkPartialTree, walkTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import {
  absent,
  cidOf,
  entry,
  type Link,
  linkTo,
  tailOf,
  TreeBlocks,
  type TreeNode,
  value,
} from './tree-blocks.ts'

const limits = { recordsMax: 1000 }
/** Keys of the heights 0, 0, 0, 1 and 2. */
const [low, lowNext, lowLast, one, two] = ['a/0', 'a/1', 'a/4', 'a/3', 'a/18'] as const
const bytesOfKey = entry(low).k

test('the blocks of these tests are a tree where nothing is wrong', () => {
  expect([low, lowNext, lowLast, one, two].map(keyHeight)).toEqual([0, 0, 0, 1, 2])
  const blocks = new TreeBlocks()
  const right = blocks.node([{ ...entry(one), t: blocks.node([entry(lowLast)]) }])
  const left = blocks.node([], blocks.node([entry(low), entry('1', 2)]))
  const root = blocks.node([{ ...entry(two), t: right }], left)
  expect(keysOf(blocks, root)).toEqual([low, lowNext, two, one, lowLast])
})

describe('a tree is refused', () => {
  const shape = 'its shape is another'
  test.each<[string, string, (blocks: TreeBlocks) => Link]>([
    ['without its root', 'missing', () => absent],
    ['with a missing subtree', 'missing', (blocks) => blocks.node([entry(two)], absent)],
    ['with a root that is no map', shape, (blocks) => blocks.put([1])],
    ['with a root without entries', shape, (blocks) => blocks.put({ l: null })],
    ['with entries that are no list', 'malformed', (blocks) => blocks.put({ e: {}, l: null })],
    ['with an entry that is no map', shape, (blocks) => blocks.put({ e: [1], l: null })],
    ['with a left link that is a text', shape, (blocks) => blocks.put({ e: [], l: 'x' })],
    ['with a left link that is bytes', shape, (blocks) => blocks.put({ e: [], l: bytesOfKey })],
    ['without a left link', shape, (blocks) => blocks.put({ e: [entry(low)] })],
    ['with a member too many', shape, (blocks) => blocks.put({ e: [entry(low)], l: null, m: 1 })],
    ['with an entry without value', shape, (blocks) => blocks.node([{ ...entry(low), v: null }])],
    ['with a text as key', 'malformed', (blocks) => blocks.node([{ ...entry(low), k: low }])],
    ['with an entry with more', shape, (blocks) => blocks.node([{ ...entry(low), m: 1 }])],
    ['with a key that is not allowed', 'a key must', (blocks) => blocks.node([entry('a b')])],
    ['with a key that is no ASCII', 'a key must', (blocks) => blocks.node([entry('a/é')])],
    ['with a key of no bytes', 'a key must', (blocks) => blocks.node([entry('')])],
    [
      'with a key that is too long',
      'too long',
      (blocks) => blocks.node([entry(`a/${'a'.repeat(1023)}`)]),
    ],
    [
      'with keys in the wrong order',
      'sorted',
      (blocks) => blocks.node([entry(lowNext), entry('0', 2)]),
    ],
    ['with a key twice', 'sorted', (blocks) => blocks.node([entry(low), entry('', 3)])],
    ['with a prefix not used', 'prefix', (blocks) => blocks.node([entry(low), entry(lowNext)])],
    ['with a prefix in the first entry', 'prefix', (blocks) => blocks.node([entry(low, 5)])],
    [
      'with a prefix longer than the key before',
      'prefix',
      (blocks) => blocks.node([entry(low), entry('1', 4)]),
    ],
    [
      'with a prefix below zero',
      'malformed',
      (blocks) => blocks.node([entry(low), entry('1', -1)]),
    ],
    ['with two heights in a node', 'layer', (blocks) => blocks.node([entry(low), entry('3', 2)])],
    [
      'with an empty subtree',
      'a subtree has no record',
      (blocks) => blocks.node([entry(one)], blocks.node([])),
    ],
    [
      'with a chain to an empty subtree',
      'a subtree has no record',
      (blocks) => blocks.node([entry(two)], blocks.node([], blocks.node([]))),
    ],
    [
      'with a root too high',
      'the root has no record',
      (blocks) => blocks.node([], blocks.node([entry(low)])),
    ],
    [
      'with a layer left out',
      'layer',
      (blocks) => blocks.node([{ ...entry(two), t: blocks.node([entry(lowLast)]) }]),
    ],
    [
      'with a subtree higher than its parent',
      'layer',
      (blocks) => blocks.node([entry(one)], blocks.node([entry(two)])),
    ],
    [
      'with a subtree below the lowest layer',
      'below the lowest layer',
      (blocks) => blocks.node([entry(low)], absent),
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
      'that is deeper than its root is high',
      'below the lowest layer',
      (blocks) => {
        let node = blocks.node([entry(low)])
        for (let layer = 0; layer < 5000; layer++) node = blocks.node([], node)
        return blocks.node([entry(two)], node)
      },
    ],
  ])('%s', (_, message, make) => {
    const blocks = new TreeBlocks()
    const root = make(blocks)
    expect(() => keysOf(blocks, root)).toThrow(MstError)
    expect(() => keysOf(blocks, root)).toThrow(message)
  })

  test('when its blocks go in a circle', () => {
    const bytes = encode({ e: [entry(two)], l: absent })
    expect(() => walked(value, () => bytes)).toThrow(MstError)
  })

  test('with a node whose CID says that it is a blob', () => {
    const node = encode({ e: [], l: null })
    expect(() => walked(cidForRaw(node), () => node)).toThrow('no DAG-CBOR')
    const blocks = new TreeBlocks()
    const root = blocks.node([entry(one)], linkTo(cidForRaw(encode({ e: [entry(low)], l: null }))))
    expect(() => keysOf(blocks, root)).toThrow('no DAG-CBOR')
  })

  test('with more records than allowed', () => {
    const tree = grown(['a/a', 'a/b', 'a/c'])
    const { block } = TreeBlocks.of(tree)
    const walk = (recordsMax: number) => [...walkTree(tree.rootCid(), block, { recordsMax })]
    expect(() => walk(2)).toThrow('more than 2')
    expect(walk(3)).toHaveLength(3)
  })

  test('when a number in it is not the shortest', () => {
    const node = encode({ e: [entry(low)], l: null })
    const places = [node.indexOf(0x81), node.indexOf(0x43), node.indexOf(0x70) + 1]
    for (const [index, major] of [0x80, 0x40, 0].entries()) {
      const at = places[index] ?? 0
      const number = (node[at] ?? 0) & 0x1f
      for (const head of [[24, number], [25, 0, number], [26, 0, 0, 0, number], [27], [31]]) {
        const [info = 0, ...rest] = head
        const bytes = joined(node.subarray(0, at), [major | info, ...rest], node.subarray(at + 1))
        expect(() => walked(cidForCbor(bytes), () => bytes)).toThrow(MstError)
      }
    }
  })

  test('when a node of it is cut, or has bytes behind it', () => {
    const node = encode({ e: [entry(low), entry('1', 2)], l: null })
    expect(walked(cidForCbor(node), () => node)).toHaveLength(2)
    for (let length = 0; length < node.length; length++) {
      expect(() => walked(value, () => node.subarray(0, length))).toThrow(MstError)
    }
    expect(() => walked(value, () => joined(node, [0]))).toThrow('bytes follow')
  })
})

const keys = fc.uniqueArray(fc.stringMatching(/^[a-c]\/[a-z]{1,3}$/), { maxLength: 60 })

test('any tree is walked', () => {
  fc.assert(
    fc.property(keys, (keys) => {
      const tree = grown(keys)
      const leaves = walked(tree.rootCid(), TreeBlocks.of(tree).block)
      expect(leaves).toEqual([...tree.entries()].map(([key, cid]) => ({ key, cid })))
    }),
  )
})

test('any tree of @atproto/repo is walked', async () => {
  await fc.assert(
    fc.asyncProperty(keys, async (keys) => {
      const storage = new MemoryBlockstore()
      let theirs = await MST.create(storage)
      for (const key of keys) theirs = await theirs.add(key, CID.decode(value))
      const { root, blocks: nodes } = await theirs.getUnstoredBlocks()
      const blocks = new TreeBlocks()
      nodes.forEach((bytes) => blocks.add(bytes))
      const found = walked(parseCidBytes(root.bytes), blocks.block).map(({ key }) => key)
      expect(found).toEqual(keys.toSorted())
    }),
    { numRuns: 40 },
  )
})

test('a node may be longer than any record', () => {
  const all = Array.from({ length: 40_000 }, (_, at) => `zone.stratos.feed.post/${at}`)
  const flat = all.filter((key) => keyHeight(key) === 0).toSorted()
  const tree = Mst.fromSorted(flat.map((key) => [key, value]))
  const nodes = [...tree.nodes()]
  expect(nodes).toHaveLength(1)
  expect(nodes[0]?.bytes.length).toBeGreaterThan(1024 * 1024)
  const { block } = TreeBlocks.of(tree)
  const leaves = [...walkTree(tree.rootCid(), block, { recordsMax: flat.length })]
  expect(leaves.map(({ key }) => key)).toEqual(flat)
})

describe('where a node is missing', () => {
  const tree = grown(Array.from({ length: 60 }, (_, at) => `a/${at}`))

  test('no tree is walked to its end', () => {
    for (const { cid } of tree.nodes()) {
      const blocks = TreeBlocks.of(tree)
      blocks.delete(cid)
      expect(() => walked(tree.rootCid(), blocks.block)).toThrow(linkTo(cid).$link)
    }
  })

  test('a walk over parts tells it in its place, and leaves out what is below', () => {
    const all = [...tree.entries()].map(([key]) => key)
    for (const { cid } of tree.nodes()) {
      const blocks = TreeBlocks.of(tree)
      const below = blocks.keysBelow(linkTo(cid))
      blocks.delete(cid)
      const parts = [...walkPartialTree(tree.rootCid(), blocks.block, limits)]
      const found = parts.map((part) => ('missing' in part ? part.missing : part.key))
      const at = all.indexOf(below[0] ?? '')
      expect(found).toEqual([...all.slice(0, at), cid, ...all.slice(at + below.length)])
    }
  })
})

/**
 * Whatever is changed in a node, with all links above it put right: the walk refuses it, or it is
 * the one tree of the records that were walked.
 */
test('a changed tree is refused unless it is another tree', () => {
  let refused = 0
  fc.assert(
    fc.property(keys, fc.nat(), change, (keys, nodeAt, change) => {
      const tree = grown(keys)
      const blocks = TreeBlocks.of(tree)
      const nodes = [...tree.nodes()].map(({ cid }) => linkTo(cid).$link)
      const root = blocks.changed(linkTo(tree.rootCid()), (node, { $link }) =>
        $link === nodes[nodeAt % nodes.length] ? changed(node, change, nodes) : node,
      )
      let leaves
      try {
        leaves = walked(cidOf(root), blocks.block)
      } catch (error) {
        expect(error).toBeInstanceOf(MstError)
        refused += 1
        return
      }
      const again = Mst.fromSorted(leaves.map(({ key, cid }) => [key, cid]))
      expect(equalCids(again.rootCid(), cidOf(root))).toBeTrue()
    }),
    { numRuns: 2000 },
  )
  expect(refused).toBeGreaterThan(1000)
})

const change = fc.record({
  kind: fc.constantFrom(
    ...(['remove', 'repeat', 'swap', 'prefix', 'tail', 'right', 'left', 'value', 'more'] as const),
  ),
  entry: fc.nat(),
  number: fc.integer({ min: -2, max: 2 }),
  text: fc.string({ maxLength: 3 }),
  link: fc.option(fc.nat()),
})
type Change = typeof change extends fc.Arbitrary<infer Value> ? Value : never

function changed(node: TreeNode, change: Change, nodes: readonly Cid[]): DataValue {
  const at = change.entry % Math.max(1, node.e.length)
  const found = node.e[at]
  const other = nodes[(change.link ?? 0) % nodes.length]
  const link = change.link === null || other === undefined ? null : { $link: other }
  const edited = (members: DataObject) => ({
    ...node,
    e: found === undefined ? node.e : node.e.with(at, { ...found, ...members }),
  })
  switch (change.kind) {
    case 'remove':
      return { ...node, e: node.e.toSpliced(at, 1) }
    case 'repeat':
      return { ...node, e: found === undefined ? [] : node.e.toSpliced(at, 0, found) }
    case 'swap':
      return { ...node, e: [...node.e.slice(at), ...node.e.slice(0, at)] }
    case 'prefix':
      return edited({ p: (found?.p ?? 0) + change.number })
    case 'tail':
      return edited({ k: { $bytes: Buffer.from(tailOf(found) + change.text).toString('base64') } })
    case 'right':
      return edited({ t: link })
    case 'left':
      return { ...node, l: link }
    case 'value':
      return edited({ v: link })
    case 'more':
      return edited({ [change.text]: change.number })
    default:
      return unreachable(change.kind)
  }
}

function walked(root: CidBytes, block: BlockOf): MstLeaf[] {
  return [...walkTree(root, block, limits)]
}

function keysOf(blocks: TreeBlocks, root: Link): string[] {
  return walked(cidOf(root), blocks.block).map(({ key }) => key)
}

function grown(keys: readonly string[]): Mst {
  return keys.reduce((tree, key) => tree.set(key, value), Mst.empty)
}

function joined(...parts: (Uint8Array | number[])[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts.map((part) => Uint8Array.from(part))))
}
