import { join } from 'node:path'
import { encode } from '../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../src/atproto/cid.ts'
import {
  type AtUri,
  type Did,
  parseDid,
  parseNsid,
  parseRkey,
  recordUri,
} from '../src/atproto/syntax.ts'
import { nextTid } from '../src/atproto/tid.ts'
import { ActorStore, type Head, type RecordOp } from '../src/store/actor.ts'
import { actorFolder } from '../src/store/actor-folder.ts'
import { openSqlite } from '../src/store/sqlite.ts'

export const collection = parseNsid('zone.stratos.feed.post')
const opsOfCommit = 1_000

/**
 * Puts posts into a repo that no service has open, each in the boundaries that `boundariesOf` gives
 * for its number. Rows are as writes make them; the commits are unsigned, for reads look at none.
 * @returns the URIs, oldest first
 */
export async function putPosts(
  { dataDir, did, count }: { readonly dataDir: string; readonly did: Did; readonly count: number },
  boundariesOf: (index: number) => readonly string[],
): Promise<AtUri[]> {
  const path = join(actorFolder(dataDir, did), 'stratos.sqlite')
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 8192, exclusive: true })
  const store = new ActorStore(sqlite, did)
  const found = await store.head()
  if (found === undefined) throw new Error(`${did} has no repo`)
  const { commit, ...head } = found
  let before: Head = head
  const uris: AtUri[] = []
  while (uris.length < count) {
    const ops: RecordOp[] = []
    for (let left = Math.min(opsOfCommit, count - uris.length); left > 0; left--) {
      const blockId = before.lastBlock + ops.length + 1
      const op = postOp(did, { index: uris.length, blockId, after: boundariesOf(uris.length) })
      ops.push(op)
      uris.push(op.uri)
    }
    const rev = nextTid({ nowMs: Date.now(), clockId: 0, after: before.rev })
    const lastBlock = before.lastBlock + ops.length
    const after: Head = { ...before, rev, seq: before.seq + 1, lastBlock }
    const time = new Date().toISOString()
    await store.apply([{ did, before, after, commit, time, ops, outbox: [] }])
    before = after
  }
  await store.close()
  return uris
}

function postOp(
  did: Did,
  post: { readonly index: number; readonly blockId: number; readonly after: readonly string[] },
): RecordOp {
  const { index, blockId, after } = post
  const rkey = parseRkey(nextTid({ nowMs: firstPostMs + index * 1000, clockId: 0 }))
  const content = encode({
    $type: collection,
    text: `Post ${index}, of the length that people write most often, with an é in it.`,
    createdAt: new Date(firstPostMs + index * 1000).toISOString(),
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

export function benchDid(index: number): Did {
  const letters = 'abcdefghijklmnopqrstuvwxyz234567'
  const digest = Buffer.from(Bun.SHA256.hash(String(index), 'hex'))
  return parseDid(
    `did:plc:${Array.from(digest.subarray(0, 24), (byte) => letters[byte % 32]).join('')}`,
  )
}
