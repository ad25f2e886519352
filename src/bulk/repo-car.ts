import { CarPieces } from '../atproto/car-pieces.ts'
import { type CidBytes, cidMatches, cidToBytes, cidToString, equalCids } from '../atproto/cid.ts'
import { verifyCommit } from '../atproto/commit.ts'
import { PackedMst } from '../atproto/mst-packed.ts'
import type { Did, Tid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { View } from '../store/actor.ts'
import type { ActorSnapshot, Content } from '../store/actor-snapshot.ts'
import { RepoCorrupt } from '../store/repo-corrupt.ts'
import { nodeName, nodesAt } from './past-nodes.ts'
import { Repeated } from './repeated.ts'

export interface CarWanted {
  /** Whose eyes the content of records is for; the tree is whole in any case. */
  readonly view: View
  /** Blocks that a reader of this rev has are left out, as far as that is known. */
  readonly since?: Tid | undefined
  /** More records that changed since then are not looked at: the whole repo is sent. */
  readonly changesMax: number
  /** Learns how much memory the tree takes so far, and throws where that is too much. */
  readonly hold: (bytes: number) => void
  /** Between steps of a few milliseconds; throws when this is to end. */
  readonly rest: () => Promise<void>
  /** `did:key` by which the commit is signed. */
  readonly signingKey: string
}

/**
 * A repo as a CAR in pieces: the commit, then the tree from its root, each record where it stands in
 * the order of keys.
 * @throws RepoCorrupt when the rows do not make what the commit signs, before the first piece, or
 *   when a block is not what its CID names
 */
export async function* repoCar(
  snapshot: ActorSnapshot,
  { view, since, changesMax, hold, rest, signingKey }: CarWanted,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { did, head } = snapshot
  using tree = new PackedMst()
  await fill(tree, snapshot, { hold, rest })
  const data = tree.finish()
  const commit = verifyCommit(head.commit, signingKey)
  if (commit.did !== did || commit.rev !== head.rev || !equalCids(commit.data, data)) {
    throw new RepoCorrupt(`the records of ${did} do not make the tree of its commit ${head.rev}`)
  }
  const root = cidToBytes(head.cid)
  if (!cidMatches(root, head.commit)) throw new RepoCorrupt(`the head of ${did} has another CID`)
  const past =
    since === undefined ? undefined : await nodesAt({ since, changesMax }, snapshot, rest)
  const car = new CarPieces(root, pieceBytes)
  car.put(root, head.commit)
  const contents = new Contents(snapshot, { view, since: past === undefined ? undefined : since })
  const repeated = new Repeated(tree.recordCids)
  const known = (node: CidBytes): boolean => past !== undefined && past.has(nodeName(node))
  let steps = 0
  for (const next of tree.walk(known)) {
    if (typeof next !== 'number') car.put(next.cid, next.bytes)
    else {
      const cid = tree.recordCid(next)
      const content = contents.at(next, cid)
      if (content !== undefined && repeated.isFirst(cid)) car.put(cid, content)
    }
    for (let piece = car.next(); piece !== undefined; piece = car.next()) yield piece
    if (++steps % stepsAtOnce === 0) await rest()
  }
  yield car.rest()
}

const pieceBytes = 256 * 1024
/** Of a few microseconds each. */
const stepsAtOnce = 2_000

async function fill(
  tree: PackedMst,
  snapshot: ActorSnapshot,
  { hold, rest }: Pick<CarWanted, 'hold' | 'rest'>,
): Promise<void> {
  let steps = 0
  for (const { path, cid } of snapshot.entries()) {
    tree.add(path, cidToBytes(cid))
    if (++steps % stepsAtOnce !== 0) continue
    hold(tree.heldBytes)
    await rest()
  }
  hold(tree.heldBytes)
}

/** The content of records, read along with a walk over the tree. */
class Contents {
  readonly #did: Did
  readonly #rows: IterableIterator<Content>
  /** Rows that were read. */
  #count = 0

  constructor(
    snapshot: ActorSnapshot,
    { view, since }: { readonly view: View; readonly since: Tid | undefined },
  ) {
    this.#did = snapshot.did
    this.#rows = snapshot.contents(view, since)
  }

  /** Records are asked for in the order of their keys; undefined of what the reader does not get. */
  at(index: number, cid: CidBytes): Uint8Array | undefined {
    let row: Content | undefined
    for (; this.#count <= index; this.#count++) row = this.#rows.next().value
    assert(row !== undefined, 'each record in the tree has a row')
    if (row.shown === 0) return undefined
    if (row.content !== null && cidMatches(cid, row.content)) return row.content
    throw new RepoCorrupt(`${cidToString(cid)} of ${this.#did} is gone or was altered`)
  }
}
