import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encode } from '../../src/atproto/cbor.ts'
import { type Cid, cidForCbor, cidToBytes, cidToString } from '../../src/atproto/cid.ts'
import { signCommit } from '../../src/atproto/commit.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { Mst } from '../../src/atproto/mst.ts'
import {
  type AtUri,
  type Did,
  parseNsid,
  parseRkey,
  recordUri,
  type Tid,
} from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import type { Change, Head, RecordOp } from '../../src/store/actor-change.ts'
import { ActorStore } from '../../src/store/actor.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { openSqlite } from '../../src/store/sqlite.ts'

export const collection = parseNsid('zone.stratos.feed.post')
/** In one transaction. */
const postsAtOnce = 1_000

/**
 * Puts posts into a repo that no service has open, each in the boundaries that `boundariesOf` gives
 * for its number. Rows are as writes make them. Of the commits only the last one is of the tree and
 * signed, for that is the one that everything afterwards rests on.
 * @returns the URIs, oldest first
 */
export async function putPosts(
  {
    dataDir,
    did,
    count,
    postsOfCommit = postsAtOnce,
  }: {
    readonly dataDir: string
    readonly did: Did
    readonly count: number
    readonly postsOfCommit?: number
  },
  boundariesOf: (index: number) => readonly string[],
): Promise<AtUri[]> {
  const home = actorFolder(dataDir, did)
  const path = join(home, 'stratos.sqlite')
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 8192, exclusive: true })
  const store = new ActorStore(sqlite, did)
  const found = await store.head()
  if (found === undefined) throw new Error(`${did} has no repo`)
  const { commit, ...head } = found
  let before: Head = head
  const key = SigningKey.import(readFileSync(join(home, 'signing_key'), 'utf8').trim())
  const uris: AtUri[] = []
  const changes: Change[] = []
  while (uris.length < count) {
    const ops: RecordOp[] = []
    for (let left = Math.min(postsOfCommit, count - uris.length); left > 0; left--) {
      const blockId = before.lastBlock + ops.length + 1
      const op = postOp(did, { index: uris.length, blockId, after: boundariesOf(uris.length) })
      ops.push(op)
      uris.push(op.uri)
    }
    const rev = nextTid({ nowMs: Date.now(), clockId: 0, after: before.rev })
    const lastBlock = before.lastBlock + ops.length
    const isLast = uris.length === count
    if (isLast) await store.apply(changes.splice(0))
    const signed = isLast
      ? signCommit({ did, data: await rootOf(store, ops), rev }, key)
      : undefined
    const cid = signed === undefined ? before.cid : cidToString(signed.cid)
    const after: Head = { cid, rev, seq: before.seq + 1, lastBlock }
    const time = new Date().toISOString()
    const bytes = signed?.bytes ?? commit
    changes.push({ did, before, after, commit: bytes, time, ops, outbox: [] })
    before = after
    if (isLast || changes.length * postsOfCommit >= postsAtOnce)
      await store.apply(changes.splice(0))
  }
  await store.close()
  return uris
}

/** A key somewhere between those of so many posts that `putPosts` put. */
export function keyBetween(count: number): Tid {
  const nowMs = firstPostMs + Math.random() * count * postEveryMs
  return nextTid({ nowMs, clockId: 1 + Math.floor(Math.random() * 1000) })
}

/** Of the tree with these records added. */
async function rootOf(store: ActorStore, ops: readonly RecordOp[]) {
  const pages = await Array.fromAsync(store.entries())
  const there = pages.flat().map((row) => entryOf(row, row.cid))
  const added = ops.flatMap((op) => (op.put === undefined ? [] : [entryOf(op, op.put.cid)]))
  const entries = [...there, ...added].toSorted(([a], [b]) => (a < b ? -1 : 1))
  return Mst.fromSorted(entries).rootCid()
}

function entryOf({ collection, rkey }: Pick<RecordOp, 'collection' | 'rkey'>, cid: Cid) {
  return [`${collection}/${rkey}`, cidToBytes(cid)] as const
}

function postOp(
  did: Did,
  post: { readonly index: number; readonly blockId: number; readonly after: readonly string[] },
): RecordOp {
  const { index, blockId, after } = post
  const rkey = parseRkey(nextTid({ nowMs: firstPostMs + index * postEveryMs, clockId: 0 }))
  const content = encode({
    $type: collection,
    text: `Post ${index}, of the length that people write most often, with an é in it.`,
    createdAt: new Date(firstPostMs + index * postEveryMs).toISOString(),
    langs: ['en'],
    boundary: {
      $type: 'zone.stratos.boundary.defs#Domains',
      values: after.map((value) => ({ value })),
    },
    salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' },
  })
  const put = { cid: cidToString(cidForCbor(content)), content, blockId, links: [] }
  return {
    action: 'create',
    uri: recordUri(did, collection, rkey),
    collection,
    rkey,
    put,
    before: [],
    after,
  }
}

const firstPostMs = Date.UTC(2025, 0, 1)
const postEveryMs = 1000
