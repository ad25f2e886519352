import { describe, expect, test } from 'bun:test'
import { CarError, carBlock, carHeader } from '../../src/atproto/car.ts'
import { CborError, encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidForRaw } from '../../src/atproto/cid.ts'
import { CommitError } from '../../src/atproto/commit.ts'
import { keyHeight, MstError } from '../../src/atproto/mst-key.ts'
import { walkTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import {
  type Block,
  blockOf,
  carOf,
  commitOf,
  isNamed,
  readRepo,
  repoBlocks,
  repoLimits,
} from './repo-car.ts'
import { heldBytes } from '../kit/held.ts'
import { cidOf, entry, linkTo, TreeBlocks, value } from './tree-blocks.ts'

const blocks = repoBlocks(40)
const [commit, root, ...rest] = blocks
const car = carOf(blocks)
const header = carHeader(commit.cid)
const mebibyte = 1024 * 1024

test('the CAR of these tests is a repo where nothing is wrong', () => {
  expect(readRepo(car)).toEqual({ records: 40, missing: 0 })
})

describe('a section is refused', () => {
  const content = encode('content')
  const cid = cidForCbor(content)
  const [length, ...section] = carBlock(cid, content)
  const oneByte = length ?? 0
  test.each<[string, readonly number[]]>([
    ['whose length takes a byte too many', [oneByte | 0x80, 0, ...section]],
    ['whose length takes three bytes too many', [oneByte | 0x80, 0x80, 0x80, 0, ...section]],
    ['of no bytes', [0]],
    ['of 2^28 bytes', [0x80, 0x80, 0x80, 0x80, 1, ...section]],
    ['of 2^32 bytes', [0x80, 0x80, 0x80, 0x80, 0x10, ...section]],
    ['of 2^53 bytes', [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, ...section]],
    [
      'of 2^53 and the length',
      [oneByte | 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, ...section],
    ],
    ['of -1 byte', [...Array<number>(9).fill(0xff), 0x01, ...section]],
    ['whose length does not end', Array<number>(100).fill(0x80)],
    ['that claims a byte more than there is', [oneByte + 1, ...section]],
    ['that claims a byte less', [oneByte - 1, ...section]],
    ['that claims all the rest of 2^28', [0xff, 0xff, 0xff, 0x7f, ...section]],
    ['shorter than its CID', [35, ...section]],
    ['under an identity hash', [10, 1, 0x71, 0, 6, 1, 2, 3, 4, 5, 6]],
    ['under an identity hash of 32 bytes', replaced(2, 0x00)],
    ['under SHA-512', replaced(2, 0x13)],
    ['under a shorter hash', replaced(3, 0x1f)],
    ['under DAG-PB', replaced(1, 0x70)],
    ['under version 0', [oneByte, 0x12, 0x20, ...section.slice(4), 0, 0]],
    ['under version 2', replaced(0, 2)],
    ['whose CID is of another content', replaced(35, (section[35] ?? 0) ^ 1)],
  ])('%s', (_, bytes) => {
    expect(() => readRepo(joined(header, bytes))).toThrow(CarError)
    expect(() => readRepo(joined(car, bytes))).toThrow(CarError)
  })

  function replaced(at: number, byte: number): readonly number[] {
    return [oneByte, ...section.with(at, byte)]
  }
})

describe('a header is refused', () => {
  const link = linkTo(commit.cid)
  const canonical = encode({ roots: [link], version: 1 })
  const members = [canonical.subarray(1, 49), canonical.subarray(49)] as const
  test.each<[string, Uint8Array | readonly number[]]>([
    ['of version 2', encode({ roots: [link], version: 2 })],
    ['of version 0', encode({ roots: [link], version: 0 })],
    ['without a version', encode({ roots: [link] })],
    ['without roots', encode({ version: 1 })],
    ['with no root', encode({ roots: [], version: 1 })],
    ['with two roots', encode({ roots: [link, link], version: 1 })],
    ['with a root that is null', encode({ roots: [null], version: 1 })],
    ['with a root that is text', encode({ roots: [link.$link], version: 1 })],
    ['with a member too many', encode({ roots: [link], version: 1, x: 0 })],
    ['with its keys in another order', joined([0xa2], members[1], members[0])],
    ['with a version that is not shortest', joined(canonical.subarray(0, -1), [0x18, 1])],
    ['with a version that is a float', joined(canonical.subarray(0, -1), [0xf9, 0x3c, 0])],
    ['of indefinite length', joined([0xbf], canonical.subarray(1), [0xff])],
    ['that is no map', encode([link, 1])],
    ['that is no CBOR', [0xff, 0xff]],
    ['of no bytes', []],
  ])('%s', (_, bytes) => {
    const rest = car.subarray(header.length)
    expect(() => readRepo(joined([bytes.length], bytes, rest))).toThrow(CarError)
  })

  test('whose length is not shortest, or is cut', () => {
    expect(() => readRepo(joined([(car[0] ?? 0) | 0x80, 0], car.subarray(1)))).toThrow(CarError)
    expect(() => readRepo(Uint8Array.of(0x80))).toThrow(CarError)
  })

  test('whose root is the CID of a blob', () => {
    const raw = cidForRaw(commit.bytes)
    const bytes = joined(carHeader(raw), carBlock(raw, commit.bytes))
    expect(() => readRepo(bytes)).toThrow('the root must be')
  })
})

describe('a root is refused', () => {
  test('that is missing', () => {
    expect(() => readRepo(header)).toThrow(CarError)
    expect(() => readRepo(header)).toThrow('the root is missing')
  })

  test.each<[string, Block]>([
    ['that is a node', root ?? commit],
    ['that is a record', rest[0] ?? commit],
    ['that is no CBOR', blockOf(Uint8Array.of(0xff))],
    ['whose CBOR has a byte behind it', blockOf(joined(commit.bytes, [0]))],
    ['whose CBOR is cut', blockOf(commit.bytes.subarray(0, -1))],
    ['whose keys are not sorted', blockOf(encode({ zz: 1, did: 2 }).with(1, 0x61))],
    ['whose signature has a bit changed', blockOf(flipped(commit.bytes, sigAt() + 5))],
    ['whose data have a bit changed', blockOf(flipped(commit.bytes, commit.bytes.length - 20))],
  ])('%s', (_, block) => {
    expect(() => readRepo(carOf([block]))).toThrow(CommitError)
  })

  test('that names the CID of a blob as its tree', () => {
    expect(() => readRepo(carOf([commitOf(cidForRaw(root?.bytes ?? header))]))).toThrow(CommitError)
  })

  test('that names itself, a record or nothing as its tree', () => {
    const record = blockOf(encode({ text: 'note' }))
    expect(() => readRepo(carOf([commitOf(record.cid), record]))).toThrow(MstError)
    expect(() => readRepo(carOf([commitOf(commit.cid), commit]))).toThrow(MstError)
    expect(() => readRepo(carOf([commitOf(value)]))).toThrow(MstError)
  })
})

describe('a CAR is no whole repo', () => {
  test('cut anywhere', () => {
    for (let length = 0; length < car.length; length++) {
      expect(outcomeOf(car.subarray(0, length))).not.toBe('whole')
    }
  })

  test('with any bit changed', () => {
    for (let at = 0; at < car.length; at++) {
      expect(outcomeOf(flipped(car, at))).not.toBe('whole')
    }
  })

  test('with any byte behind it', () => {
    for (let byte = 0; byte < 256; byte++) {
      expect(() => readRepo(joined(car, [byte]))).toThrow(CarError)
    }
  })

  test('without any of its blocks, or with any of them twice', () => {
    for (const left of blocks) {
      const others = [commit, root ?? commit, ...rest].filter((block) => block !== left)
      const [first = commit, ...more] = others
      expect(outcomeOf(joined(header, carOf([first, ...more]).subarray(header.length)))).not.toBe(
        'whole',
      )
      expect(() => readRepo(carOf([commit, root ?? commit, ...rest, left]))).toThrow('comes twice')
    }
  })

  test('with a record that is not canonical', () => {
    const record = blockOf(Uint8Array.of(0x18, 1))
    const tree = Mst.fromSorted([['com.example.note/1', record.cid]])
    const nodes = [...tree.nodes()]
    expect(() => readRepo(carOf([commitOf(tree.rootCid()), ...nodes, record]))).toThrow(CborError)
  })
})

describe('memory and time are bounded', () => {
  test('for a chain of nodes without records', () => {
    const chained = new TreeBlocks()
    let node = chained.node([entry('a/0')])
    const chain: Block[] = []
    for (let layer = 0; layer < 100_000; layer++) {
      const bytes = encode({ e: [], l: node })
      chain.push(blockOf(bytes))
      node = linkTo(cidForCbor(bytes))
    }
    const top = blockOf(encode({ e: [entry('a/18')], l: node }))
    expect(() => readRepo(carOf([commitOf(top.cid), top, ...chain]))).toThrow('lowest layer')
    expect(() => readRepo(carOf([commitOf(cidOf(node)), ...chain]))).toThrow('no record')
  })

  test('for a small node that stands for much text', () => {
    const stem = `a/${'a'.repeat(1000)}`
    const keys = Array.from({ length: 40_000 }, (_, number) => `${stem}${10_000_000 + number}`)
    const flat = keys.filter((key) => keyHeight(key) === 0)
    const tree = Mst.fromSorted(flat.map((key) => [key, value]))
    const [{ bytes } = { bytes: header }] = [...tree.nodes()]
    expect(bytes.length).toBeLessThan(2 * mebibyte)
    const rootCid = tree.rootCid()
    const before = heldBytes()
    let peakBytes = 0
    let count = 0
    for (const { key } of walkTree(rootCid, () => bytes, repoLimits)) {
      if (key !== flat[count++]) throw new Error('another key')
      if (count % 5000 === 0) peakBytes = Math.max(peakBytes, heldBytes())
    }
    expect(count).toBe(flat.length)
    expect(peakBytes - before).toBeLessThan(4 * mebibyte)
  })

  test('for a node whose prefixes and counts lie', () => {
    // Of the list, of a tail and of a prefix.
    const lies = [0x1a, 0x7f, 0xff, 0xff, 0xff]
    const node = encode({ e: [entry('a/0'), entry('1', 2)], l: null })
    for (const at of [3, 7, 13]) {
      const bytes = joined(node.subarray(0, at), lies, node.subarray(at + 1))
      for (const lie of [bytes, bytes.with(at, 0x9a), bytes.with(at, 0x5a)]) {
        const block = blockOf(lie)
        expect(() => readRepo(carOf([commitOf(block.cid), block]))).toThrow(MstError)
      }
    }
  })

  test('for many blocks that nothing names', () => {
    const more = Array.from({ length: 100_000 }, (_, number) => blockOf(encode(number + 1000)))
    const [first, ...others] = blocks
    expect(readRepo(carOf([first, ...others, ...more]))).toEqual({ records: 40, missing: 0 })
  })
})

function outcomeOf(bytes: Uint8Array): string {
  try {
    const { missing } = readRepo(bytes)
    return missing === 0 ? 'whole' : 'contents missing'
  } catch (error) {
    if (!isNamed(error)) throw error
    return 'refused'
  }
}

function sigAt(): number {
  return Buffer.from(commit.bytes).indexOf('csigX@', 0, 'latin1') + 6
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  return bytes.with(at, (bytes[at] ?? 0) ^ 1)
}

function joined(...parts: (Uint8Array | readonly number[])[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts.map((part) => Uint8Array.from(part))))
}
