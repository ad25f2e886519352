import { P256Keypair } from '@atproto/crypto'
import * as theirs from '@atproto/repo'
import * as dagCbor from '@ipld/dag-cbor'
import { measure } from 'mitata'
import { CID } from 'multiformats/cid'
import { decode, encode } from '../src/atproto/cbor.ts'
import { type CidBytes, cidForCbor, cidToString } from '../src/atproto/cid.ts'
import { decodeCommit, signCommit, verifyCommit } from '../src/atproto/commit.ts'
import { checkData, type DataObject } from '../src/atproto/data.ts'
import { SigningKey } from '../src/atproto/keys.ts'
import { Mst } from '../src/atproto/mst.ts'
import { parseDid, type Tid } from '../src/atproto/syntax.ts'
import { nextTid } from '../src/atproto/tid.ts'
import { numberOption, print } from './kit/report.ts'
import { type Tree, treeNames, treesOf, value } from './kit/trees.ts'

/**
 * The repo engine beside other implementations, in one process; roots, bytes and signatures are
 * compared. Microseconds a call, medians. See README.md.
 * Usage: bun bench/repo.ts [--large 100000] [--milliseconds 300]
 */
type KeyMaker = () => string

const large = numberOption('large', { fallback: 100_000, max: 1_000_000 })
const milliseconds = numberOption('milliseconds', { fallback: 300, max: 5_000 })
const sizes = [100, 10_000, 100_000].filter((size) => size <= large)
/** The others build a tree record by record, which takes them seconds beyond this size. */
const builtByAllMax = 10_000
/** So many more records must give the same roots, one by one, before anything is timed. */
const comparedRoots = 100
const plainPost: DataObject = {
  $type: 'zone.stratos.feed.post',
  text: 'A post of the usual length, with a word or two more than it needs, and an é.',
  createdAt: '2026-11-23T00:00:00.000Z',
  langs: ['en'],
  boundary: {
    $type: 'zone.stratos.boundary.defs#Domains',
    values: [{ value: 'did:web:stratos.example.com/friends' }],
  },
}
const post: DataObject = { ...plainPost, salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' } }

await inserts('new TIDs', tidKeys)
await inserts('random keys', () => randomKey)
await rebuilds()
await records()
await commits()
print('\nall roots, bytes and signatures agree')

/** One more record in a tree of `size`, and its new root. */
async function inserts(name: string, keysOf: () => KeyMaker): Promise<void> {
  title(`insert, ${name}`, treeNames)
  for (const size of sizes) {
    const next = keysOf()
    const trees = await treesOf(treeOf(size, next))
    for (let count = 0; count < comparedRoots; count++) await growAll(trees, next())
    const figures: number[] = []
    for (const tree of trees) figures.push(await micros(() => tree.insert(next())))
    row(`${size} records`, figures)
  }
}

async function growAll(trees: readonly Tree[], key: string): Promise<void> {
  const roots: string[] = []
  for (const tree of trees) {
    await tree.grow(key)
    roots.push(await tree.root())
  }
  expectSame('roots', roots)
}

/** Ours knows how to take sorted records all at once. */
async function rebuilds(): Promise<void> {
  title('tree of sorted records, with its root; a record', treeNames)
  for (const size of sizes) {
    const sorted = treeOf(size, tidKeys())
    const entries = [...sorted.entries()]
    const ourTime = await micros(() => Mst.fromSorted(entries).rootCid())
    const figures = [ourTime / size]
    const [, ...others] = size <= builtByAllMax ? await treesOf(Mst.empty) : []
    for (const tree of others) {
      const start = performance.now()
      for (const [key] of entries) await tree.grow(key)
      const root = await tree.root()
      figures.push(((performance.now() - start) * 1000) / size)
      expectSame('roots', [cidToString(sorted.rootCid()), root])
    }
    row(`${size} records`, figures)
  }
}

async function records(): Promise<void> {
  const bytes = encode(post)
  // Bytes are written otherwise there: the salt is left out.
  expectSame('encodings', [hex(encode(plainPost)), hex(dagCbor.encode(plainPost))])
  title(`a record of ${bytes.length} bytes`, ['ours', '@ipld/dag-cbor'])
  row('check', [await micros(() => checkData(post))])
  row('encode', [await micros(() => encode(post)), await micros(() => dagCbor.encode(post))])
  row('decode', [await micros(() => decode(bytes)), await micros(() => dagCbor.decode(bytes))])
  row('CID', [await micros(() => cidForCbor(bytes))])
  row('CID as text', [await micros(() => cidToString(value))])
}

/** By P-256 keys, as ours are. */
async function commits(): Promise<void> {
  const did = parseDid('did:plc:44ybard66vv44zksje25o7dz')
  const unsigned = { did, data: value, rev: nextTid({ nowMs: 0, clockId: 0 }) }
  const key = SigningKey.generate()
  const bytes = signCommit(unsigned, key).bytes
  const theirKey = await P256Keypair.create()
  const theirUnsigned = { ...unsigned, version: 3, data: CID.decode(value), prev: null } as const
  const theirCommit = await theirs.signCommit(theirUnsigned, theirKey)
  const ourCommit = { ...theirUnsigned, sig: decodeCommit(bytes).sig }
  if (!(await theirs.verifyCommitSig(ourCommit, key.did))) throw new Error('ours is refused')
  const theirBytes = dagCbor.encode(theirCommit)
  verifyCommit(theirBytes, theirKey.did())
  title('a commit', ['ours', '@atproto/repo'])
  row('sign', [
    await micros(() => signCommit(unsigned, key)),
    await micros(() => theirs.signCommit(theirUnsigned, theirKey)),
  ])
  row('verify', [
    await micros(() => verifyCommit(bytes, key.did)),
    await micros(() => theirs.verifyCommitSig(ourCommit, key.did)),
  ])
}

function expectSame(what: string, values: readonly string[]): void {
  if (new Set(values).size > 1) throw new Error(`${what} differ: ${values.join(', ')}`)
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

function treeOf(size: number, next: KeyMaker): Mst {
  const keys = Array.from({ length: size }, next).toSorted()
  return Mst.fromSorted(keys.map((key): [string, CidBytes] => [key, value]))
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
  const { p50 } = await measure(run, {
    min_cpu_time: milliseconds * 1e6,
  })
  return p50 / 1000
}

function title(text: string, columns: readonly string[]): void {
  print(`\n${text.padEnd(54)}${columns.map((column) => column.padStart(20)).join('')}`)
}

/** The first figure is ours; behind the others stands how many times more they take. */
function row(name: string, figures: readonly number[]): void {
  const [ours = 1] = figures
  const cells = figures.map((figure, index) =>
    index === 0 ? figure.toFixed(2) : `${figure.toFixed(2)} (x${(figure / ours).toFixed(1)})`,
  )
  print(`  ${name.padEnd(52)}${cells.map((cell) => cell.padStart(20)).join('')}`)
}
