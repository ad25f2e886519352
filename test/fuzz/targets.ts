import fc from 'fast-check'
import {
  CarError,
  carBlock,
  carHeader,
  carHeaderLength,
  carSectionHeadBytesMax,
  encodeCar,
  readCarSection,
} from '../../src/atproto/car.ts'
import { indexCar } from '../../src/atproto/car-index.ts'
import { CborError, decode, encode } from '../../src/atproto/cbor.ts'
import {
  type CidBytes,
  CidError,
  cidForCbor,
  cidForRaw,
  cidToBytes,
  cidToString,
  equalCids,
  parseCid,
  parseCidBytes,
} from '../../src/atproto/cid.ts'
import { CommitError, decodeCommit } from '../../src/atproto/commit.ts'
import type { DataObject } from '../../src/atproto/data.ts'
import { checkKey, commonPrefixLength, MstError } from '../../src/atproto/mst-key.ts'
import { MstNodeReader } from '../../src/atproto/mst-node-reader.ts'
import { walkPartialTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'
import { anyValue } from '../atproto/arbitrary.ts'
import { blockOf, carOf, readRepo, repoBlocks, repoLimits } from '../atproto/repo-car.ts'
import { mutated } from './mutations.ts'

/** A reader of bytes that strangers send. */
export interface Target {
  readonly name: string
  /** What it is given: anything, and good bytes that were changed. */
  readonly bytes: fc.Arbitrary<Uint8Array>
  /** Its named errors; any other is a fault. */
  readonly refusals: readonly Refusal[]
  /** Throws also where what was read, written again, is not the same bytes. */
  read(bytes: Uint8Array): void
}
type Refusal =
  | typeof CarError
  | typeof CborError
  | typeof CidError
  | typeof CommitError
  | typeof MstError

/** @throws whatever is no named error of the target */
export function outcomeOf(target: Target, bytes: Uint8Array): 'read' | 'refused' {
  try {
    target.read(bytes)
    return 'read'
  } catch (error) {
    if (target.refusals.some((refusal) => error instanceof refusal)) return 'refused'
    throw error
  }
}

const anything = fc.uint8Array({ maxLength: 200 })
const repo = repoBlocks(30)
const [commit] = repo
const keys = Array.from({ length: 60 }, (_, number) => `com.example.note/${number}`).toSorted()
const tree = Mst.fromSorted(keys.map((key) => [key, cidForRaw(Buffer.from(key))]))
const nodes = [...tree.nodes()]
const contents = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 })

/** A good CAR of any blocks, which need not be a repo. */
const anyCar = contents.map((contents) => {
  const blocks = contents.map(blockOf)
  return encodeCar(blocks[0]?.cid ?? commit.cid, blocks)
})

/** A repo of which one block was changed, under the CID that it then has. */
const otherBlock = fc.nat(repo.length - 1).chain((place) => {
  return mutated(fc.constant(repo[place]?.bytes ?? commit.bytes)).map((bytes) => {
    const [first, ...rest] = repo.with(place, blockOf(bytes))
    return carOf([first ?? commit, ...rest])
  })
})

const anyNode = fc.constantFrom(...nodes.map(({ bytes }) => bytes))

const fewMembers = fc.dictionary(
  fc.oneof(fc.string({ maxLength: 8 }), fc.constantFrom('prev', 'sig', 'version')),
  fc.oneof(fc.constant(null), fc.maxSafeInteger(), fc.string({ maxLength: 8 })),
  { maxKeys: 3, noNullPrototype: true },
)
/** A commit with members that are others, or more. */
const otherMembers = fc.tuple(fewMembers, fc.nat(9)).map(([more, left]) => {
  const members = Object.entries(commitMembers(commit.bytes))
  return encode({ ...more, ...Object.fromEntries(members.toSpliced(left, 1)) })
})

/** The place of a node, and what stands there instead. */
const otherNode = fc.nat(nodes.length - 1).chain((place) => {
  const own = fc.constant(nodes[place]?.bytes ?? new Uint8Array())
  return fc
    .oneof(anything, mutated(own), mutated(anyNode))
    .map((bytes) => Buffer.from([place, ...bytes]))
})

export const targets: readonly Target[] = [
  {
    name: 'CBOR',
    bytes: fc.oneof(anything, mutated(anyValue.map(encode))),
    refusals: [CborError],
    read: (bytes) => expectSame(encode(decode(bytes)), bytes),
  },
  {
    name: 'CID',
    bytes: fc.oneof(anything, mutated(anything.map(cidForCbor))),
    refusals: [CidError],
    read: (bytes) => expectSame(cidToBytes(cidToString(parseCidBytes(bytes))), bytes),
  },
  {
    name: 'text of a CID',
    bytes: fc.oneof(
      anything,
      mutated(anything.map((bytes) => Buffer.from(cidToString(cidForCbor(bytes))))),
    ),
    refusals: [CidError],
    read: (bytes) => {
      const text = parseCid(Buffer.from(bytes).toString('latin1'))
      expectSame(Buffer.from(cidToString(cidToBytes(text))), bytes)
    },
  },
  {
    name: 'commit',
    bytes: fc.oneof(anything, otherMembers, mutated(fc.constant(commit.bytes))),
    refusals: [CommitError],
    read: readCommit,
  },
  {
    name: 'CAR',
    bytes: fc.oneof(anything, mutated(anyCar)),
    refusals: [CarError],
    read: readCar,
  },
  {
    name: 'node',
    bytes: fc.oneof(anything, mutated(anyNode)),
    refusals: [MstError],
    read: readNode,
  },
  { name: 'tree', bytes: otherNode, refusals: [MstError], read: readTree },
  {
    name: 'repo',
    bytes: fc.oneof(otherBlock, mutated(fc.constant(carOf(repo)))),
    refusals: [CarError, CborError, CommitError, MstError],
    read: readRepo,
  },
]

function readCommit(bytes: Uint8Array): void {
  expectSame(encode(commitMembers(bytes)), bytes)
}

function commitMembers(bytes: Uint8Array): DataObject {
  const { did, data, rev, prev, sig } = decodeCommit(bytes)
  const $bytes = Buffer.from(sig).toString('base64')
  const link = prev === null ? null : { $link: prev }
  return { did, version: 3, data: linkOf(data), rev, prev: link, sig: { $bytes } }
}

/** Every block is found, and all sections together are the CAR. */
function readCar(bytes: Uint8Array): void {
  const index = runSteps(indexCar(new MemorySource(bytes), repoLimits))
  const parts = [carHeader(index.root)]
  for (let at = carHeaderLength; at < bytes.length;) {
    const head = bytes.subarray(at, at + carSectionHeadBytesMax)
    const { cid, start, end } = readCarSection(head, at)
    parts.push(carBlock(cid, index.block(cid) ?? new Uint8Array()))
    expectSame(index.block(cid), bytes.subarray(start, end))
    at = end
  }
  if (parts.length - 1 !== index.count) throw new Error('the count of blocks is another')
  expectSame(Buffer.concat(parts), bytes)
}

/** By the encoder for any data, which knows nothing of nodes. */
function readNode(bytes: Uint8Array): void {
  const reader = new MstNodeReader(bytes)
  const e: DataObject[] = []
  let last = ''
  for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
    const { key, cid, right } = entry
    const p = commonPrefixLength(last, key)
    const k = { $bytes: Buffer.from(key.slice(p)).toString('base64') }
    e.push({ k, p, t: linkOf(right), v: linkOf(cid) })
    last = key
  }
  expectSame(encode({ e, l: linkOf(reader.left) }), bytes)
}

/** What the nodes say is believed here: what comes out must be keys in order, all the same. */
function readTree([place = 0, ...bytes]: Uint8Array): void {
  const other = nodes[place % nodes.length]?.cid ?? commit.cid
  const block = (cid: CidBytes) => {
    if (equalCids(cid, other)) return Uint8Array.from(bytes)
    return nodes.find((node) => equalCids(node.cid, cid))?.bytes
  }
  let last = ''
  let parts = 0
  for (const part of walkPartialTree(tree.rootCid(), block, { recordsMax: 10_000 })) {
    if (++parts > 10_000) throw new Error('the walk goes on and on')
    if ('missing' in part) continue
    checkKey(part.key)
    if (part.key <= last) throw new Error('keys are not in order')
    last = part.key
  }
}

function linkOf(cid: CidBytes | undefined): DataObject | null {
  return cid === undefined ? null : { $link: cidToString(cid) }
}

function expectSame(written: Uint8Array | undefined, read: Uint8Array): void {
  if (written !== undefined && Buffer.compare(written, read) === 0) return
  throw new Error('what was read is written as other bytes')
}
