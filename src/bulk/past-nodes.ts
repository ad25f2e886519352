import { type Cid, type CidBytes, cidForCbor, cidToBytes } from '../atproto/cid.ts'
import { TreeEdge } from '../atproto/mst-build.ts'
import { encodeNode } from '../atproto/mst-node.ts'
import type { Tid } from '../atproto/syntax.ts'
import type { ActorSnapshot, Entry } from '../store/actor-snapshot.ts'

/** Names of the nodes of the tree as it was at `since`, where the events tell what it was. */
export async function nodesAt(
  { since, changesMax }: { readonly since: Tid; readonly changesMax: number },
  snapshot: ActorSnapshot,
  rest: () => Promise<void>,
): Promise<ReadonlySet<string> | undefined> {
  if (!snapshot.remembers(since)) return undefined
  // The oldest change of a path tells what was there before all of them.
  const before = new Map<string, Cid | null>()
  let steps = 0
  for (const { path, prev } of snapshot.opsSince(since)) {
    before.set(path, prev)
    if (before.size > changesMax) return undefined
    if (++steps % stepsAtOnce === 0) await rest()
  }
  const names = new Set<string>()
  const edge = new TreeEdge(({ leaves, children }) => {
    const cid = cidForCbor(encodeNode(leaves, children))
    names.add(nodeName(cid))
    return { cid }
  })
  for (const { path, cid } of entriesAt(snapshot.entries(), before)) {
    edge.add(path, cidToBytes(cid))
    if (++steps % stepsAtOnce === 0) await rest()
  }
  if (edge.finish() === undefined) names.add(nodeName(cidForCbor(encodeNode([], [undefined]))))
  return names
}

/** Of a node's CID: bytes as characters, which is faster than its text. */
export function nodeName(cid: CidBytes): string {
  return Buffer.from(cid.buffer, cid.byteOffset, cid.length).toString('latin1')
}

/** Of a few microseconds each. */
const stepsAtOnce = 2_000

/** Entries as they were before some changes, in the same order. */
function* entriesAt(
  entries: Iterable<Entry>,
  before: ReadonlyMap<string, Cid | null>,
): IterableIterator<Entry> {
  const gone = [...before].toSorted(([a], [b]) => (a < b ? -1 : 1))
  let place = 0
  const past = function* (to: string | undefined): IterableIterator<Entry> {
    for (; place < gone.length; place++) {
      const [path = '', cid = null] = gone[place] ?? []
      if (to !== undefined && path > to) return
      if (cid !== null) yield { path, cid }
    }
  }
  for (const entry of entries) {
    yield* past(entry.path)
    if (!before.has(entry.path)) yield entry
  }
  yield* past(undefined)
}
