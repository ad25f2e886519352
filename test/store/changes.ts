import { join } from 'node:path'
import { type Cid, cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { encode } from '../../src/atproto/cbor.ts'
import {
  type Did,
  type Nsid,
  parseDid,
  parseNsid,
  parseRkey,
  recordUri,
} from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import type { Change, Head, RecordOp } from '../../src/store/actor-change.ts'
import { ActorStore } from '../../src/store/actor.ts'
import type { OutboxEntry } from '../../src/store/actor-outbox.ts'
import { migrateSqlite } from '../../src/store/migrate.ts'
import { openSqlite, type Sqlite } from '../../src/store/sqlite.ts'

const did: Did = parseDid('did:plc:storestorestorestorestor')
export const collection: Nsid = parseNsid('zone.stratos.feed.post')

/** The database of one actor, and the repo in it as a test goes along. */
export class Actor {
  readonly sqlite: Sqlite
  readonly store: ActorStore
  head: Head | undefined

  private constructor(sqlite: Sqlite) {
    this.sqlite = sqlite
    this.store = new ActorStore(sqlite, did)
  }

  static async open(folder: string): Promise<Actor> {
    const path = join(folder, `${crypto.randomUUID()}.sqlite`)
    const options = { synchronous: 'normal', cacheKib: 256, exclusive: false } as const
    const actor = new Actor(openSqlite(path, options))
    await migrateSqlite(actor.sqlite, texts('migrations/actor/sqlite'))
    return actor
  }

  /** Stores one commit on the head and moves on. */
  async commit(ops: readonly RecordOp[], outbox: readonly OutboxEntry[] = []): Promise<Change> {
    const change = changeOn(this.head, ops, outbox)
    await this.store.apply([change])
    this.head = change.after
    return change
  }

  /** An op that makes a record; the repo's next commit must take it. */
  creating(rkey: string, boundaries: readonly string[], text = rkey): RecordOp {
    const blockId = (this.head?.lastBlock ?? 0) + 1
    return {
      action: 'create',
      ...place(rkey),
      ...put(text, blockId),
      before: [],
      after: boundaries,
    }
  }

  /** Everything that is stored, table by table. */
  async dump(): Promise<Record<string, object[]>> {
    const rows: Record<string, object[]> = {}
    for (const table of tables) rows[table] = await this.sqlite.all(`select * from ${table}`)
    return rows
  }
}

const tables = [
  'stratos_repo_root',
  'stratos_record',
  'stratos_record_boundary',
  'stratos_repo_block',
  'stratos_seq',
  'stratos_outbox',
  'stratos_backlink',
]

/** A commit after `before`. What the commit itself says is not the store's concern. */
export function changeOn(
  before: Head | undefined,
  ops: readonly RecordOp[],
  outbox: readonly OutboxEntry[] = [],
): Change {
  const nowMs = Date.UTC(2026, 10, 23)
  const rev = nextTid({ nowMs, clockId: 1, after: before?.rev })
  const commit = encode({ rev })
  const after: Head = {
    cid: cidToString(cidForCbor(commit)),
    rev,
    seq: (before?.seq ?? 0) + 1,
    lastBlock: (before?.lastBlock ?? 0) + ops.filter((op) => op.put !== undefined).length,
  }
  return { did, before, after, commit, time: new Date(nowMs).toISOString(), ops, outbox }
}

export function place(rkey: string, within = collection) {
  const key = parseRkey(rkey)
  return { collection: within, rkey: key, uri: recordUri(did, within, key) }
}

/** A record of one text, as an op puts it. */
export function put(text: string, blockId: number) {
  const content = encode({ text })
  const cid: Cid = cidToString(cidForCbor(content))
  return { put: { cid, content, blockId, links: [] } }
}
