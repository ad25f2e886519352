import { existsSync } from 'node:fs'
import type { Cid } from '../atproto/cid.ts'
import type { Did, Tid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { EventOp, Head } from './actor-change.ts'
import type { LogEvent } from './actor-events.ts'
import { selectHead, type View } from './actor.ts'
import { visible } from './actor-view.ts'
import { openSqlite, type Sqlite } from './sqlite.ts'

export interface Entry {
  /** `collection/rkey` */
  readonly path: string
  readonly cid: Cid
}

export interface Content {
  /** Whether the reader gets it. */
  readonly shown: 0 | 1
  /** Null where it is not shown, or the block is gone that the record's row names. */
  readonly content: Uint8Array | null
}

/**
 * An actor's database as it stood at one moment, for long reads on another thread than its owner's.
 * Writes go on beside it; as long as it is open their log cannot be shortened.
 */
export class ActorSnapshot implements AsyncDisposable {
  readonly did: Did
  readonly head: Head & { readonly commit: Uint8Array }
  readonly #sqlite: Sqlite

  private constructor(sqlite: Sqlite, did: Did) {
    this.did = did
    this.#sqlite = sqlite
    const [row] = sqlite.query<Head & { content: Uint8Array }>(selectHead, did)
    assert(row !== undefined, 'a database with a repo has a head')
    const { content, ...head } = row
    this.head = { ...head, commit: content }
  }

  /** @throws where there is no such database, or no head in it */
  static async open(path: string, did: Did): Promise<ActorSnapshot> {
    assert(existsSync(path), 'a repo that is read has a database')
    // It could write, so that as the last one to close the file it removes the log, but it must not.
    const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib, exclusive: false })
    try {
      sqlite.script('pragma query_only = on')
      sqlite.script('begin')
      return new ActorSnapshot(sqlite, did)
    } catch (error) {
      await sqlite.close()
      throw error
    }
  }

  /** Every record, in the order of the tree. */
  entries(): IterableIterator<Entry> {
    const from = `at://${this.did}/`.length + 1
    return this.#sqlite.each(
      'select substr(uri, $1) as path, cid from stratos_record order by uri',
      from,
    )
  }

  /**
   * Of every record, in the same order: its content, where `view` may see it and it was written after
   * `since`.
   */
  contents(view: View, since: Tid | undefined): IterableIterator<Content> {
    const condition = visible(view, 2)
    const shown = `(r."repoRev" > $1 and ${condition.sql})`
    const sql = `select ${shown} as shown, b.content from stratos_record r
      left join stratos_repo_block b on ${shown} and b.id = r."blockId" order by r.uri`
    return this.#sqlite.each(sql, since ?? '', ...condition.args)
  }

  /** Whether there was a commit of `rev`, and the events that are kept tell all that followed. */
  remembers(rev: Tid): boolean {
    const sql = 'select rev from stratos_seq where rev <= $1 order by seq desc limit 1'
    const [last] = this.#sqlite.query<{ rev: Tid }>(sql, rev)
    return rev === this.head.rev || rev === last?.rev
  }

  /** What was done after `rev`, newest first. */
  *opsSince(rev: Tid): IterableIterator<EventOp> {
    const sql = 'select rev, event from stratos_seq order by seq desc'
    for (const row of this.#sqlite.each<{ rev: Tid; event: string }>(sql)) {
      if (row.rev <= rev) return
      const event: LogEvent = JSON.parse(row.event)
      if ('ops' in event) yield* event.ops.toReversed()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sqlite.close()
  }
}

/** Of one such handle. */
const cacheKib = 1024
