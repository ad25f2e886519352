import { CarPieces } from '../atproto/car-pieces.ts'
import {
  type Cid,
  type CidBytes,
  cidMatches,
  cidToBytes,
  cidToString,
  equalCids,
} from '../atproto/cid.ts'
import { verifyCommit } from '../atproto/commit.ts'
import { Mst } from '../atproto/mst.ts'
import { MstBuilder } from '../atproto/mst-build.ts'
import { MstNode } from '../atproto/mst-node.ts'
import type { Tid } from '../atproto/syntax.ts'
import { pause } from '../lib/pause.ts'
import type { View } from '../store/actor.ts'
import type { ActorSnapshot, Content } from '../store/actor-snapshot.ts'
import { RepoCorrupt } from '../store/repo-corrupt.ts'

export interface CarWanted {
  /** Whose eyes the content of records is for; the tree is whole in any case. */
  readonly view: View
  /** Blocks that a reader of this rev has are left out, as far as that is known. */
  readonly since?: Tid | undefined
  /** More records that changed since then are not looked at: the whole repo is sent. */
  readonly changesMax: number
  /** `did:key` by which the commit is signed. */
  readonly signingKey: string
}

/**
 * A repo as a CAR in pieces: the commit, then the tree from its root, each record where it stands in
 * the order of keys. Other work of the thread goes first between the steps of long parts.
 * @throws RepoCorrupt when the rows do not make what the commit signs, before the first piece, or
 *   when a block is not what its CID names
 */
export async function* repoCar(
  snapshot: ActorSnapshot,
  { view, since, changesMax, signingKey }: CarWanted,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { did, head } = snapshot
  const { tree, repeated } = await readTree(snapshot, signal)
  const commit = verifyCommit(head.commit, signingKey)
  if (commit.did !== did || commit.rev !== head.rev || !equalCids(commit.data, tree.rootCid())) {
    throw new RepoCorrupt(`the records of ${did} do not make the tree of its commit ${head.rev}`)
  }
  const root = cidToBytes(head.cid)
  if (!cidMatches(root, head.commit)) throw new RepoCorrupt(`the head of ${did} has another CID`)
  const past =
    since === undefined
      ? undefined
      : await treeAt({ since, changesMax }, { tree, snapshot }, signal)
  const car = new CarPieces(root, pieceBytes)
  car.put(root, head.commit)
  const known = past === undefined ? nothing : await nodesOf(past, signal)
  const records = new Contents(snapshot, { view, since: past === undefined ? undefined : since })
  for (const next of tree.walk((node) => known.has(cidToString(node)))) {
    if (next instanceof MstNode) car.put(next.cid, next.encode())
    else {
      const content = records.at(next.key, next.cid)
      if (content !== undefined && repeated.isFirst(next.cid)) car.put(next.cid, content)
    }
    for (let piece = car.next(); piece !== undefined; piece = car.next()) yield piece
  }
  yield car.rest()
}

const pieceBytes = 256 * 1024
/** Steps of a few microseconds each between two looks at what else there is to do. */
const stepsAtOnce = 2_000
const nothing: ReadonlySet<Cid> = new Set()

async function readTree(
  snapshot: ActorSnapshot,
  signal: AbortSignal,
): Promise<{ tree: Mst; repeated: Repeated }> {
  const prefix = `at://${snapshot.did}/`.length
  const repeated = new Repeated()
  const builder = new MstBuilder()
  let steps = 0
  for (const { uri, cid } of snapshot.entries()) {
    const bytes = cidToBytes(cid)
    repeated.add(bytes)
    builder.add(uri.slice(prefix), bytes)
    if (++steps % stepsAtOnce === 0) await pause(signal)
  }
  return { tree: Mst.built(builder), repeated }
}

/** The tree as it was at `since`, where the events tell how to get there. */
async function treeAt(
  { since, changesMax }: { readonly since: Tid; readonly changesMax: number },
  { tree, snapshot }: { readonly tree: Mst; readonly snapshot: ActorSnapshot },
  signal: AbortSignal,
): Promise<Mst | undefined> {
  if (!snapshot.remembers(since)) return undefined
  // The oldest change of a path tells what was there before all of them.
  const before = new Map<string, Cid | null>()
  let steps = 0
  for (const { path, prev } of snapshot.opsSince(since)) {
    before.set(path, prev)
    if (before.size > changesMax) return undefined
    if (++steps % stepsAtOnce === 0) await pause(signal)
  }
  let past = tree
  for (const [path, prev] of before) {
    if (prev !== null) past = past.set(path, cidToBytes(prev))
    else if (past.get(path) !== undefined) past = past.delete(path)
    if (++steps % changesAtOnce === 0) await pause(signal)
  }
  return past
}

const changesAtOnce = 100

async function nodesOf(tree: Mst, signal: AbortSignal): Promise<ReadonlySet<Cid>> {
  const nodes = new Set<Cid>()
  let steps = 0
  for (const next of tree.walk()) {
    if (next instanceof MstNode) nodes.add(cidToString(next.cid))
    if (++steps % stepsAtOnce === 0) await pause(signal)
  }
  return nodes
}

/** The content of records, read along with a walk over the tree. */
class Contents {
  readonly #rows: IterableIterator<Content>
  readonly #prefix: string
  #next: Content | undefined

  constructor(
    snapshot: ActorSnapshot,
    { view, since }: { readonly view: View; readonly since: Tid | undefined },
  ) {
    this.#prefix = `at://${snapshot.did}/`
    this.#rows = snapshot.contents(view, since)
    this.#advance()
  }

  /** Keys are asked for in their order; undefined of what the reader does not get. */
  at(key: string, cid: CidBytes): Uint8Array | undefined {
    const uri = this.#prefix + key
    // Of what changed and changed back there may be rows below nodes that are left out.
    while (this.#next !== undefined && this.#next.uri < uri) this.#advance()
    if (this.#next?.uri !== uri) return undefined
    const { content } = this.#next
    this.#advance()
    if (content !== null && cidMatches(cid, content)) return content
    throw new RepoCorrupt(`the content of ${uri} is gone or was altered`)
  }

  #advance(): void {
    const { value, done } = this.#rows.next()
    this.#next = done === true ? undefined : value
  }
}

/** Records of one content share a block, which comes once. */
class Repeated {
  /** By a part of the hash, which is enough to pass nearly all others. */
  readonly #seen = new Set<number>()
  readonly #more = new Map<Cid, 'due' | 'done'>()

  add(cid: CidBytes): void {
    const part = partOf(cid)
    if (this.#seen.has(part)) this.#more.set(cidToString(cid), 'due')
    this.#seen.add(part)
  }

  isFirst(cid: CidBytes): boolean {
    if (this.#more.size === 0) return true
    const name = cidToString(cid)
    const first = this.#more.get(name) !== 'done'
    if (this.#more.has(name)) this.#more.set(name, 'done')
    return first
  }
}

/** Six bytes of the hash. */
function partOf(cid: CidBytes): number {
  return Buffer.from(cid.buffer, cid.byteOffset, cid.length).readUIntBE(8, 6)
}
