import { describe, expect, test } from 'bun:test'
import { MemoryBlockstore, MST } from '@atproto/repo'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import {
  type CidBytes,
  cidForCbor,
  cidToBytes,
  cidToString,
  equalCids,
  parseCid,
} from '../../src/atproto/cid.ts'
import { MstBuilder, RootEdge } from '../../src/atproto/mst-build.ts'
import {
  commonPrefixLength,
  isValidMstKey,
  keyHeight,
  MstError,
} from '../../src/atproto/mst-key.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { keysByHeight } from './tree-blocks.ts'
import { hasVectors, vectorJson, vectorLines } from './vectors.ts'

const value = numbered(0)
/** Keys of heights that a random choice would hardly bring: eight of each height up to seven. */
const highKeys = keysByHeight({ heightMax: 7, count: 8 })

describe('a key', () => {
  test.each([
    ['empty', ''],
    ['without a slash', 'com.example.a'],
    ['without a collection', '/a'],
    ['without a record key', 'com.example.a/'],
    ['with two slashes', 'com.example.a/b/c'],
    ['with a space', 'com.example.a/b c'],
    ['with a line break', 'com.example.a/b\n'],
    ['with an accent', 'com.example.a/é'],
    ['with a percent sign', 'com.example.a/%41'],
    ['of 1025 bytes', `a/${'b'.repeat(1023)}`],
  ])('is refused: %s', (_, key) => {
    expect(isValidMstKey(key)).toBeFalse()
    expect(() => Mst.empty.set(key, value)).toThrow(MstError)
    expect(() => Mst.fromSorted([[key, value]])).toThrow(MstError)
  })

  test.each(['a/b', 'A0/374913', 'com.example.a/_~.:-', `a/${'b'.repeat(1022)}`])(
    'is allowed: %p',
    (key) => {
      expect(isValidMstKey(key)).toBeTrue()
    },
  )
})

describe('what does not fit is refused', () => {
  test('keys that are not sorted', () => {
    const entries = ['a/b', 'a/a'].map((key) => [key, value] as const)
    expect(() => Mst.fromSorted(entries)).toThrow(MstError)
  })

  test('a key twice', () => {
    const entries = ['a/a', 'a/a'].map((key) => [key, value] as const)
    expect(() => Mst.fromSorted(entries)).toThrow(MstError)
  })

  test('deleting a key that is not in the tree', () => {
    expect(() => Mst.empty.delete('a/a')).toThrow('in the tree')
    expect(() => Mst.empty.set('a/b', value).delete('a/a')).toThrow('in the tree')
  })
})

describe('a builder', () => {
  test('that refused a key still makes the tree of what it took', () => {
    const builder = new MstBuilder()
    builder.add('a/b', value)
    for (const key of ['a/a', 'a/b', 'a']) expect(() => builder.add(key, value)).toThrow(MstError)
    builder.add('a/c', value)
    const kept = Mst.empty.set('a/b', value).set('a/c', value)
    expect(Mst.built(builder).rootCid()).toEqual(kept.rootCid())
  })

  test('that has finished starts anew', () => {
    const builder = new MstBuilder()
    builder.add('a/b', value)
    expect(Mst.built(builder).size).toBe(1)
    expect(Mst.built(builder)).toBe(Mst.empty)
    builder.add('a/a', value)
    expect([...Mst.built(builder).entries()]).toEqual([['a/a', value]])
  })
})

test('a builder of roots alone finds the root of any tree', () => {
  const entries = [...Array(3_000).keys()].map((index) => {
    const key = `a/${String(index * 7).padStart(6, '0')}`
    return [key, cidForCbor(Buffer.from(key))] as const
  })
  for (const count of [1, 2, 3, 10, 500, 3_000]) {
    const some = entries.slice(0, count)
    const builder = new RootEdge()
    for (const [key, cid] of some) builder.add(key, cid)
    expect(builder.finish()?.cid).toEqual(Mst.fromSorted(some).rootCid())
  }
  expect(new RootEdge().finish()).toBeUndefined()
})

describe('the empty tree', () => {
  test('has the root that the specification gives it', async () => {
    const theirs = await (await MST.create(new MemoryBlockstore())).getPointer()
    expect<string>(cidToString(Mst.empty.rootCid())).toBe(theirs.toString())
    expect<string>(theirs.toString()).toBe(
      'bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm',
    )
  })

  test('has one node and no record', () => {
    expect([...Mst.empty.nodes()]).toHaveLength(1)
    expect([...Mst.empty.entries()]).toEqual([])
    expect(Mst.empty.proof('a/a')).toHaveLength(1)
    expect([Mst.empty.size, Mst.empty.get('a/a')]).toEqual([0, undefined])
  })

  test('comes back when the last record goes', () => {
    for (const key of highKeys) expect(Mst.empty.set(key, value).delete(key)).toBe(Mst.empty)
  })
})

type Op = { readonly key: string; readonly cid: CidBytes | undefined }
const key = fc.oneof(
  fc.constantFrom(...highKeys),
  fc.stringMatching(/^[a-c]\/[a-d]{1,3}$/),
  fc.stringMatching(/^com\.example\.[a-z]{1,30}\/3[a-z2-7]{12}$/),
)
const ops: fc.Arbitrary<Op[]> = fc.array(
  fc.record({ key, cid: fc.option(fc.nat(50).map(numbered), { nil: undefined }) }),
  { maxLength: 40 },
)

describe('over random sequences of adds, updates and deletes', () => {
  test('a low key after the only high one is gone hangs on nothing', async () => {
    const [low = '', high = ''] = [highKeys[0], highKeys.at(-1)]
    const ours = Mst.empty.set(high, value).delete(high).set(low, value)
    const theirs = await (await MST.create(new MemoryBlockstore())).add(low, theirCid(value))
    expect<string>(cidToString(ours.rootCid())).toBe((await theirs.getPointer()).toString())
  })

  test('every root is that of @atproto/repo, and all nodes at the end', async () => {
    await fc.assert(
      fc.asyncProperty(ops, async (sequence) => {
        let ours = Mst.empty
        let theirs = await MST.create(new MemoryBlockstore())
        for (const op of sequence) {
          theirs = await applyTheirs(theirs, op, ours)
          ours = apply(ours, op)
          expect<string>(cidToString(ours.rootCid())).toBe((await theirs.getPointer()).toString())
        }
        const blocks = (await theirs.getUnstoredBlocks()).blocks
        const nodes = [...ours.nodes()]
        expect(nodes.length).toBe(blocks.size)
        for (const { cid, bytes } of nodes) {
          expect(Buffer.compare(blocks.get(theirCid(cid)) ?? new Uint8Array(), bytes)).toBe(0)
        }
      }),
      { numRuns: 60 },
    )
  }, 30_000)

  test('the tree holds what a map would, and is the one built from it', () => {
    fc.assert(
      fc.property(ops, key, (sequence, from) => {
        const map = new Map<string, CidBytes>()
        let tree = Mst.empty
        for (const op of sequence) {
          tree = apply(tree, op)
          if (op.cid === undefined) map.delete(op.key)
          else map.set(op.key, op.cid)
        }
        const sorted = [...map].toSorted(([a], [b]) => (a < b ? -1 : 1))
        expect([...tree.entries()]).toEqual(sorted)
        expect([...tree.entries(from)]).toEqual(sorted.filter(([key]) => key >= from))
        expect(tree.size).toBe(map.size)
        for (const [key, cid] of map) expect(tree.get(key)).toEqual(cid)
        const built = Mst.fromSorted(sorted)
        expect(equalCids(built.rootCid(), tree.rootCid())).toBeTrue()
        expect(built.estimatedBytes).toBe(tree.estimatedBytes)
        const records = [...tree.nodes()].flatMap(({ leaves }) => leaves.map(({ key }) => key))
        expect(records.toSorted()).toEqual(sorted.map(([key]) => key))
      }),
      { numRuns: 300 },
    )
  })

  test('no change touches a tree that was there before', () => {
    fc.assert(
      fc.property(ops, (sequence) => {
        const trees = [Mst.empty]
        for (const op of sequence) trees.push(apply(trees.at(-1) ?? Mst.empty, op))
        for (const tree of trees) {
          const root = Mst.fromSorted(tree.entries()).rootCid()
          expect(equalCids(tree.rootCid(), root)).toBeTrue()
        }
      }),
      { numRuns: 100 },
    )
  })

  test('a proof leads from the root, by links, to the key or to its gap', () => {
    fc.assert(
      fc.property(ops, key, (sequence, key) => {
        let tree = Mst.empty
        for (const op of sequence) tree = apply(tree, op)
        const proof = tree.proof(key)
        expect(equalCids(proof[0]?.cid ?? new Uint8Array(), tree.rootCid())).toBeTrue()
        for (const [index, { cid, bytes }] of proof.entries()) {
          expect(equalCids(cidForCbor(bytes), cid)).toBeTrue()
          const parent = proof[index - 1]
          if (parent !== undefined) expect(Buffer.from(parent.bytes).includes(cid)).toBeTrue()
        }
        // Every node that it shows is told with the records that stand in it.
        const nodes = [...tree.nodes()].filter(({ cid }) =>
          proof.some((one) => equalCids(one.cid, cid)),
        )
        expect(nodes).toEqual(proof)
        const found = tree.get(key)
        if (found !== undefined) {
          expect(Buffer.from(proof.at(-1)?.bytes ?? []).includes(found)).toBeTrue()
        }
      }),
      { numRuns: 100 },
    )
  })
})

test('setting what is there gives the same tree', () => {
  const tree = Mst.empty.set('a/a', value)
  expect(tree.set('a/a', numbered(0))).toBe(tree)
})

test('a change encodes no more nodes than its path has', () => {
  let tree = Mst.empty
  for (let at = 0; at < 2000; at++) tree = tree.set(`com.example.a/${at}`, numbered(at))
  tree.rootCid()
  const before = new Set([...tree.nodes()].map(({ cid }) => cid))
  const changed = [...tree.set('com.example.a/77', value).nodes()]
  // The memoised CID of an untouched node is the very same object.
  const fresh = changed.filter(({ cid }) => !before.has(cid))
  expect(fresh.length).toBe(tree.proof('com.example.a/77').length)
})

interface ProofVector {
  readonly comment: string
  readonly leafValue: string
  readonly keys: readonly string[]
  readonly adds: readonly string[]
  readonly dels: readonly string[]
  readonly rootBeforeCommit: string
  readonly rootAfterCommit: string
}
const heights: { key: string; height: number }[] = vectorJson('mst/key_heights.json')
const prefixes: { left: string; right: string; len: number }[] =
  vectorJson('mst/common_prefix.json')
const proofs: ProofVector[] = vectorJson('firehose/commit-proof-fixtures.json')

describe.skipIf(!hasVectors)('interop vectors', () => {
  test.each(heights)('the height of $key is $height', ({ key, height }) => {
    expect(keyHeight(key)).toBe(height)
  })

  test('common prefixes have their lengths', () => {
    for (const { left, right, len } of prefixes) expect(commonPrefixLength(left, right)).toBe(len)
    expect(prefixes.length).toBeGreaterThan(10)
  })

  test('the example keys make the tree of @atproto/repo, from either end', async () => {
    const keys = vectorLines('mst/example_keys.txt')
    expect(keys.length).toBeGreaterThan(100)
    let theirs = await MST.create(new MemoryBlockstore())
    for (const key of keys) theirs = await theirs.add(key, theirCid(value))
    const root = (await theirs.getPointer()).toString()
    const grown = (order: string[]) => order.reduce((tree, key) => tree.set(key, value), Mst.empty)
    expect<string>(cidToString(grown(keys).rootCid())).toBe(root)
    expect<string>(cidToString(grown(keys.toReversed()).rootCid())).toBe(root)
    const sorted = keys.toSorted().map((key) => [key, value] as const)
    expect<string>(cidToString(Mst.fromSorted(sorted).rootCid())).toBe(root)
  })

  test.each(proofs)('roots before and after: $comment', (vector) => {
    const cid = cidToBytes(parseCid(vector.leafValue))
    let tree = vector.keys.reduce((tree, key) => tree.set(key, cid), Mst.empty)
    expect<string>(cidToString(tree.rootCid())).toBe(vector.rootBeforeCommit)
    for (const key of vector.adds) tree = tree.set(key, cid)
    for (const key of vector.dels) tree = tree.delete(key)
    expect<string>(cidToString(tree.rootCid())).toBe(vector.rootAfterCommit)
  })
})

function apply(tree: Mst, { key, cid }: Op): Mst {
  if (cid !== undefined) return tree.set(key, cid)
  return tree.get(key) === undefined ? tree : tree.delete(key)
}

/**
 * A tree of theirs that lost its last record keeps the layer that it had until it is loaded anew,
 * and would hang the next record on nodes without leaves; hence an emptied one is a new one.
 */
async function applyTheirs(tree: MST, { key, cid }: Op, before: Mst): Promise<MST> {
  const known = before.get(key) !== undefined
  if (cid === undefined && known && before.size === 1) return MST.create(new MemoryBlockstore())
  if (cid === undefined) return known ? tree.delete(key) : tree
  return known ? tree.update(key, theirCid(cid)) : tree.add(key, theirCid(cid))
}

function theirCid(cid: CidBytes): CID {
  return CID.decode(cid)
}

function numbered(number: number): CidBytes {
  return cidForCbor(new Uint8Array([0x19, number >> 8, number & 0xff]))
}
