import { encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import type { DataObject } from '../../src/atproto/data.ts'
import { parseDid, parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import type { IndexEvent } from '../../src/indexer/event.ts'
import type { PutOp } from '../../src/indexer/post-row.ts'

export const service = parseDid('did:web:stratos.test')
export const otherService = parseDid('did:web:other.test')
export const posts = parseNsid('zone.stratos.feed.post')

/** A post as a service keeps it. */
export function post(boundaries: readonly string[], more: DataObject = {}): DataObject {
  return {
    $type: posts,
    text: 'hello',
    createdAt: '2026-01-02T03:04:05.678Z',
    boundary: {
      $type: 'zone.stratos.boundary.defs#Domains',
      values: boundaries.map((value) => ({ value })),
    },
    salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' },
    ...more,
  }
}

export function put(rkey: string, record: DataObject, action: PutOp['action'] = 'create'): PutOp {
  const content = encode(record)
  const cid = cidToString(cidForCbor(content))
  return { action, collection: posts, rkey: parseRkey(rkey), cid, content, record }
}

export function remove(rkey: string) {
  return { action: 'delete', collection: posts, rkey: parseRkey(rkey) } as const
}

type Commit = Extract<IndexEvent, { readonly kind: 'commit' }>

export function commit(did: string, seq: number, ...ops: Commit['ops']): Commit {
  return { kind: 'commit', service, did: parseDid(did), seq, ops }
}
