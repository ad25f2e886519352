/**
 * The repo engine beside other implementations, in one process: `bun bench/repo.ts`.
 * Microseconds a call, medians; under a minute.
 */
import { MemoryBlockStore, NodeStore, NodeWrangler } from '@atcute/mst'
import { BlockMap, MemoryBlockstore, MST } from '@atproto/repo'
import * as dagCbor from '@ipld/dag-cbor'
import { measure } from 'mitata'
import { CID } from 'multiformats/cid'
import { decode, encode } from '../src/atproto/cbor.ts'
import { type CidBytes, cidForCbor, cidToString } from '../src/atproto/cid.ts'
import { signCommit, verifyCommit } from '../src/atproto/commit.ts'
import { checkData, type DataObject } from '../src/atproto/data.ts'
import { SigningKey } from '../src/atproto/keys.ts'
import { Mst } from '../src/atproto/mst.ts'
import { parseDid, type Tid } from '../src/atproto/syntax.ts'
import { nextTid } from '../src/atproto/tid.ts'

type KeyMaker = () => string

const sizes = [100, 10_000, 100_000]
const value = cidForCbor(new Uint8Array([1]))
const theirValue = CID.decode(value)
const post: DataObject = {
  $type: 'zone.stratos.feed.post',
  text: 'A post of the usual length, with a word or two more than it needs, and an é.',
  createdAt: '2026-11-23T00:00:00.000Z',
  langs: ['en'],
  boundary: {
    $type: 'zone.stratos.boundary.defs#Domains',
    values: [{ value: 'did:web:stratos.example.com/friends' }],
  },
  salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' },
}

await inserts('TID', tidKeys)
await inserts('random', () => randomKey)
await rebuilds()
await records()

/** One more record in a tree of `size`, and its new root. */
async function inserts(name: string, keysOf: () => KeyMaker): Promise<void> {
  title(`insert, ${name} keys`, ['ours', '@atproto/repo', '@atcute/mst'])
  for (const size of sizes) {
    const next = keysOf()
    const tree = treeOf(size, next)
    const theirs = await atprotoTree(tree)
    const { wrangler, root } = await atcuteTree(tree)
    row(`${size} records`, [
      await micros(() => tree.set(next(), value).rootCid()),
      await micros(async () => (await theirs.add(next(), theirValue)).getPointer()),
      await micros(() => wrangler.putRecord(root, next(), { $link: cidToString(value) })),
    ])
  }
}

async function rebuilds(): Promise<void> {
  title('rebuild from sorted rows, with its root; a record', ['ours'])
  for (const size of sizes) {
    const entries = [...treeOf(size, tidKeys()).entries()]
    row(`${size} records`, [(await micros(() => Mst.fromSorted(entries).rootCid())) / size])
  }
}

async function records(): Promise<void> {
  const key = SigningKey.generate()
  const did = parseDid('did:plc:44ybard66vv44zksje25o7dz')
  const commit = { did, data: Mst.empty.rootCid(), rev: nextTid({ nowMs: 0, clockId: 0 }) }
  const signed = signCommit(commit, key)
  const bytes = encode(post)
  title(`a record of ${bytes.length} bytes`, ['ours', '@ipld/dag-cbor'])
  row('check', [await micros(() => checkData(post))])
  row('encode', [await micros(() => encode(post)), await micros(() => dagCbor.encode(post))])
  row('decode', [await micros(() => decode(bytes)), await micros(() => dagCbor.decode(bytes))])
  row('CID', [await micros(() => cidForCbor(bytes))])
  row('CID as text', [await micros(() => cidToString(value))])
  row('commit, sign', [await micros(() => signCommit(commit, key))])
  row('commit, verify', [await micros(() => verifyCommit(signed.bytes, key.did))])
}

function treeOf(size: number, next: KeyMaker): Mst {
  const keys = Array.from({ length: size }, next).toSorted()
  return Mst.fromSorted(keys.map((key): [string, CidBytes] => [key, value]))
}

async function atprotoTree(tree: Mst): Promise<MST> {
  const blocks = new BlockMap()
  for (const { cid, bytes } of tree.nodes()) blocks.set(CID.decode(cid), bytes)
  return MST.load(new MemoryBlockstore(blocks), CID.decode(tree.rootCid()))
}

async function atcuteTree(tree: Mst): Promise<{ wrangler: NodeWrangler; root: string }> {
  const store = new MemoryBlockStore()
  for (const { cid, bytes } of tree.nodes()) {
    await store.put(cidToString(cid), new Uint8Array(bytes))
  }
  return { wrangler: new NodeWrangler(new NodeStore(store)), root: cidToString(tree.rootCid()) }
}

function tidKeys(): KeyMaker {
  let after: Tid | undefined
  return () => {
    after = nextTid({ nowMs: 1_700_000_000_000, clockId: 1, after })
    return `zone.stratos.feed.post/${after}`
  }
}

function randomKey(): string {
  return `zone.stratos.feed.post/${Math.random().toString(36).slice(2, 15)}`
}

async function micros(run: () => unknown): Promise<number> {
  const { p50 } = await measure(run, { min_cpu_time: 300e6 })
  return p50 / 1000
}

function title(text: string, columns: readonly string[]): void {
  console.log(`\n${text.padEnd(54)}${columns.map((column) => column.padStart(20)).join('')}`)
}

/** The first figure is ours; behind the others stands how many times more they take. */
function row(name: string, figures: readonly number[]): void {
  const [ours = 1] = figures
  const cells = figures.map((figure, index) =>
    index === 0 ? figure.toFixed(2) : `${figure.toFixed(2)} (x${(figure / ours).toFixed(1)})`,
  )
  console.log(`  ${name.padEnd(52)}${cells.map((cell) => cell.padStart(20)).join('')}`)
}
