import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { type CidBytes, cidForCbor, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { encodeCar } from '../../src/atproto/car.ts'
import { encode } from '../../src/atproto/cbor.ts'
import type { DataValue } from '../../src/atproto/data.ts'
import { commonPrefixLength, keyHeight } from '../../src/atproto/mst-key.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { cidOf, entry, linkTo, TreeBlocks } from '../atproto/tree-blocks.ts'
import { keyOf, pathOf } from '../bulk/foreign-posts.ts'
import type { Block, ForeignRepo } from '../bulk/foreign-repo.ts'
import { postCollection } from '../kit/post.ts'
import { textOf } from '../kit/xrpc.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

const marker = `only for us ${crypto.randomUUID()}`
const path = pathOf('one')

let importers: Importers
let repo: ForeignRepo
/** Its blocks, the commit first. */
let sound: readonly Block[]

beforeAll(async () => {
  importers = await Importers.start({ people: { alice: ['a'], bob: ['a'] } })
  repo = importers.repo('alice')
  for (let index = 0; index < 200; index++) {
    repo.put(pathOf(keyOf(index)), importers.post(`${marker} ${index}`))
  }
  sound = repo.blocks()
})
afterAll(async () => {
  await importers?.[Symbol.asyncDispose]()
})

/** CARs of which the first part of each name says what was done to a sound one. */
const broken: Record<string, Record<string, () => Uint8Array>> = {
  bytes: {
    none: () => new Uint8Array(0),
    'a text': () => Buffer.from('{"records":[]}'),
    'of zeros': () => new Uint8Array(10_000),
    'of a cut header': () => carOf(sound).slice(0, 40),
    'of a header alone': () => carOf(sound).slice(0, 59),
    'of version 2': () => changed(carOf(sound), 58, 2),
    'with a root of another hash': () => changed(carOf(sound), 16, 0x13),
    'that end within a length': () => Buffer.concat([carOf(sound), Buffer.of(0x80)]),
    'that end within a block': () => carOf(sound).slice(0, -1),
    'with a length of zero': () => Buffer.concat([carOf(sound), Buffer.of(0)]),
    'with a length in a longer form': () => Buffer.concat([carOf(sound), Buffer.of(0x80, 0)]),
    'with a length beyond any': () => Buffer.concat([carOf(sound), Buffer.alloc(9, 0xff)]),
    'after the last block': () => Buffer.concat([carOf(sound), Buffer.from(marker)]),
    'with another one in a record': () => changed(carOf(sound), -1, 0x7f),
  },
  blocks: {
    none: () => carOf([]),
    'without the commit': () => carOf(sound.slice(1), sound[0]?.cid),
    'with one twice': () => carOf([...sound, sound[0] ?? noBlock]),
    'with one over a mebibyte': () => {
      return carOf([...sound, blockOf(new Uint8Array(1_048_577))])
    },
    'with a raw root': () => carOf([rawBlock(encode(1)), ...sound]),
    'with a record as root': () => carOf(sound.toReversed()),
    'with a node as root': () => carOf(sound.slice(1)),
  },
  commit: {
    'of version 2': () => committed({ version: 2 }),
    'of nobody': () => committed({ did: 'alice' }),
    'of somebody else': () => committed({ did: importers.did('bob') }),
    'without a rev': () => committed({ rev: 'now' }),
    'without a signature': () => committed({ sig: null }),
    'with a member too many': () => committed({ more: 1 }),
    'without a tree': () => committed({ data: null }),
    'of a tree that is missing': () => committed({ data: linkTo(noBlock.cid) }),
    'of a raw tree': () => committed({ data: linkTo(cidForRaw(encode(1))) }),
    'that is a list': () => carOf([blockOf(encode([1])), ...sound.slice(1)]),
    'that is no DAG-CBOR': () => carOf([blockOf(Buffer.of(0x9f)), ...sound.slice(1)]),
  },
  tree: {
    'without a node': () => carOf(sound.toSpliced(2, 1)),
    'with a record as node': () => planted(new TreeBlocks(), linkTo(recordBlock(1).cid)),
    'of another shape': () => {
      const blocks = new TreeBlocks()
      return planted(blocks, blocks.put({ e: [], l: null, more: 1 }))
    },
    'with keys out of order': () => {
      const [first, second] = [lowKey(postCollection), lowKey('com.example.thing')]
      const blocks = new TreeBlocks()
      return planted(blocks, blocks.node([leaf(first), leaf(second)]))
    },
    'with a key on another layer': () => {
      const keys = [...repo.cids.keys()].slice(0, 50).map((rkey) => pathOf(rkey))
      const blocks = new TreeBlocks()
      const flat = keys.map((key, index) => leaf(key, keys[index - 1]))
      return planted(blocks, blocks.node(flat))
    },
    'with a prefix that is not whole': () => {
      const [first, second] = [lowKey(postCollection), lowKey(`${postCollection}s`)]
      const blocks = new TreeBlocks()
      return planted(blocks, blocks.node([leaf(first), leaf(second)]))
    },
    'with nodes of nothing': () => {
      const blocks = new TreeBlocks()
      return planted(blocks, blocks.node([], blocks.node([], blocks.node([]))))
    },
    'with a key without end': () => {
      const blocks = new TreeBlocks()
      return planted(blocks, blocks.node([entry(pathOf('x'.repeat(1024)))]))
    },
  },
  record: {
    'that is missing': () => carOf(sound.slice(0, -1)),
    'of a raw CID': () => withRecord(rawBlock(encode(importers.post(marker)))),
    'that is a list': () => withRecord(blockOf(encode([marker]))),
    'that is a text': () => withRecord(blockOf(encode(marker))),
    'with a float': () => withRecord(blockOf(Buffer.from('a16161fb3ff8000000000000', 'hex'))),
    'with a key twice': () => withRecord(blockOf(Buffer.from('a2616101616102', 'hex'))),
    'with bytes behind it': () => {
      return withRecord(blockOf(Buffer.concat([encode(importers.post(marker)), Buffer.of(0)])))
    },
    'that is empty': () => withRecord(blockOf(new Uint8Array(0))),
    'nested without end': () => withRecord(blockOf(Buffer.alloc(10_000, 0x81))),
  },
}

const cases = Object.entries(broken).flatMap(([what, ones]) =>
  Object.entries(ones).map(([how, make]) => [`${what} ${how}`, what, make] as const),
)

describe('no repo of alice are', () => {
  test.each(cases)('%s', async (_, what, make) => {
    const car = make()
    for (const boundaryMap of [[], [`did:web:old.test/a=${importers.stratos.boundary('a')}`]]) {
      const ask = () => importers.send('alice', car, { params: { boundaryMap } })
      const answer = await importers.expectRefused('alice', [400, 'InvalidCar'], ask)
      expect(JSON.stringify(answer.body)).not.toContain(marker)
      const message = textOf(answer.body, 'message')
      if (what === 'record') expect(message).toMatch(/^zone\.stratos\.feed\.post\/[^ ]+: /)
    }
  })
})

test('the sound one is, whatever else is in it', async () => {
  const more = [blockOf(encode(marker)), rawBlock(Buffer.from(marker))]
  const all = [...sound, ...more].toReversed()
  expect(await importers.send('alice', carOf(all, sound[0]?.cid))).toMatchObject({
    status: 200,
    body: { imported: 200, rewritten: 0 },
  })
})

const noBlock = blockOf(encode('missing'))

function carOf(blocks: readonly Block[], root = blocks[0]?.cid): Uint8Array {
  return encodeCar(root ?? noBlock.cid, blocks)
}

function blockOf(bytes: Uint8Array): Block {
  return { cid: cidForCbor(bytes), bytes }
}

function rawBlock(bytes: Uint8Array): Block {
  return { cid: cidForRaw(bytes), bytes }
}

/** The sound one with another byte at a place, counted from the end where it is negative. */
function changed(car: Uint8Array, at: number, byte: number): Uint8Array {
  return car.with(at, byte)
}

/** The sound one with other members of its commit. */
function committed(over: Readonly<Record<string, DataValue>>): Uint8Array {
  const sig = { $bytes: Buffer.alloc(64, 1).toString('base64').replaceAll('=', '') }
  const data = linkTo(repo.tree.rootCid())
  const facts = { did: repo.did, version: 3, data, rev: '3kabcdefghi22', prev: null, sig }
  return carOf([blockOf(encode({ ...facts, ...over })), ...sound.slice(1)])
}

function planted(tree: TreeBlocks, root: ReturnType<typeof linkTo>): Uint8Array {
  const commit = repo.commit({ data: cidOf(root) })
  const nodes = [...tree.all()].map((bytes) => blockOf(bytes))
  return carOf([commit, ...unique([...nodes, ...sound.slice(1)])])
}

/** A tree of one record, whatever that is. */
function withRecord(record: Block): Uint8Array {
  const tree = Mst.fromSorted([[path, record.cid]])
  const nodes = [...tree.nodes()].map(({ cid, bytes }) => ({ cid, bytes }))
  return carOf([repo.commit({ data: tree.rootCid() }), ...nodes, record])
}

function recordBlock(place: number): Block {
  return sound.at(-place) ?? noBlock
}

function unique(blocks: readonly Block[]): Block[] {
  return [...new Map(blocks.map((block) => [keyFor(block.cid), block])).values()]
}

function keyFor(cid: CidBytes): string {
  return cidToString(cid)
}

/** An entry of a node for a record that is there; whole, or after what it has of the one before. */
function leaf(key: string, before = '') {
  const common = commonPrefixLength(before, key)
  return { ...entry(key.slice(common), common), v: linkTo(recordBlock(1).cid) }
}

/** One that stands in the lowest layer. */
function lowKey(collection: string): string {
  for (let index = 0; ; index++) {
    const key = `${collection}/${index}`
    if (keyHeight(key) === 0) return key
  }
}
