import type { Did } from '../atproto/syntax.ts'
import { pause } from '../lib/pause.ts'
import type { Sql } from './sql.ts'

/** Which text of a list a copy holds. */
export interface ListCopy {
  /** SHA-256 of the text. */
  readonly digest: string
  /** By which the list's server can say that nothing changed; null when it gave none. */
  readonly etag: string | null
  readonly fetchedAtMs: number
}

/**
 * The last good copy of the external list of who may enroll. Invariants:
 * - A row counts while the copy's edition lies from `since` on and before `until`.
 * - Rows are prepared for the next edition in small steps; all of them begin or cease to count at
 *   once, in the statement that names that edition.
 * - A replacement goes through every row, so that it finds what one that was cut off left behind.
 * - A copy counts for the list that it was read from, and for no other.
 *
 * For example: edition 4 holds alice and bob, and the new text bob and carol. Alice gets `until` 5
 * and carol a row `since` 5; killed here, alice and bob still count. The next replacement gives
 * both the same again, the copy says 5, and bob and carol count.
 */
export class AllowList {
  readonly #sql: Sql
  /** SHA-256 of the list's URI. */
  readonly id: string

  constructor(sql: Sql, id: string) {
    this.#sql = sql
    this.id = id
  }

  async has(did: Did): Promise<boolean> {
    const sql = `select 1 where ${isListed({ did: '$1', list: '$2' })}`
    return (await this.#sql.all(sql, did, this.id)).length === 1
  }

  async copy(): Promise<ListCopy | undefined> {
    const sql = 'select digest, etag, "fetchedAtMs" from allow_list_copy where list = $1'
    return (await this.#sql.all<ListCopy>(sql, this.id))[0]
  }

  /** The text of the copy was found to be still that of the list. */
  async renew({ etag, fetchedAtMs }: ListCopy): Promise<void> {
    const sql = 'update allow_list_copy set etag = $2, "fetchedAtMs" = $3 where list = $1'
    await this.#sql.run([{ sql, args: [this.id, etag, fetchedAtMs], rows: 1 }])
  }

  /**
   * Puts another text in the place of the one before, by what differs.
   * @param dids everybody on the list; is emptied
   * @throws the reason of an aborted `signal`; then the copy is what it was
   */
  async replace(copy: ListCopy, dids: Set<Did>, signal: AbortSignal): Promise<void> {
    const edition = (await this.#edition()) + 1
    await this.#compare(edition, dids, signal)
    await this.#add(edition, dids, signal)
    await this.#sql.run([
      { sql: 'delete from allow_list_copy', args: [] },
      {
        sql: `insert into allow_list_copy (list, digest, etag, "fetchedAtMs", edition)
          values ($1, $2, $3, $4, $5)`,
        args: [this.id, copy.digest, copy.etag, copy.fetchedAtMs, edition],
      },
    ])
  }

  /** Of whatever list is there: the rows of one serve the next. */
  async #edition(): Promise<number> {
    const sql = 'select edition from allow_list_copy'
    return (await this.#sql.all<{ edition: number }>(sql))[0]?.edition ?? 0
  }

  /** Marks the rows that stay and those that go, and takes those that stay out of `dids`. */
  async #compare(edition: number, dids: Set<Did>, signal: AbortSignal): Promise<void> {
    for (let after = ''; ;) {
      const sql = 'select did, since, until from allow_list where did > $1 order by did limit $2'
      const rows = await this.#sql.all<Row>(sql, after, stepRows)
      const stay: Did[] = []
      const go: Did[] = []
      const idle: Did[] = []
      for (const { did, since, until } of rows) {
        const counts = since < edition && (until === null || until >= edition)
        if (!counts) idle.push(did)
        else if (dids.delete(did)) stay.push(...(until === null ? [] : [did]))
        else if (until === null) go.push(did)
      }
      await this.#change([
        [deleteRows, [idle]],
        [keepRows, [stay]],
        [endRows, [go, edition]],
      ])
      const last = rows.at(-1)
      if (last === undefined) return
      after = last.did
      await pause(signal)
    }
  }

  async #add(edition: number, dids: ReadonlySet<Did>, signal: AbortSignal): Promise<void> {
    let step: Did[] = []
    for (const did of dids) {
      if (step.push(did) < stepRows) continue
      await this.#change([[addRows, [step, edition]]])
      step = []
      await pause(signal)
    }
    await this.#change([[addRows, [step, edition]]])
  }

  /** Those that change anything, in one transaction. */
  async #change(changes: readonly Change[]): Promise<void> {
    const batch = changes.filter(([, [dids]]) => dids.length > 0)
    if (batch.length === 0) return
    await this.#sql.run(
      batch.map(([sql, [dids, ...rest]]) => ({ sql, args: [JSON.stringify(dids), ...rest] })),
    )
  }
}

/** The condition that the copy of a list holds a DID; both are named in SQL. */
export function isListed(named: { readonly did: string; readonly list: string }): string {
  const edition = `(select edition from allow_list_copy where list = ${named.list})`
  return `exists (select 1 from allow_list l where l.did = ${named.did}
    and l.since <= ${edition} and (l.until is null or l.until > ${edition}))`
}

// An array is one parameter, whatever its length: SQLite binds 32,766 at most.
const among = 'did in (select value from json_each($1))'
const deleteRows = `delete from allow_list where ${among}`
const keepRows = `update allow_list set until = null where ${among}`
const endRows = `update allow_list set until = $2 where ${among}`
const addRows = `insert into allow_list (did, since, until)
  select value, $2, null from json_each($1)`

type Change = readonly [sql: string, args: readonly [dids: readonly Did[], ...edition: number[]]]

/** Rows of one step: some milliseconds, with the wait for the disk. */
const stepRows = 1_000

interface Row {
  readonly did: Did
  readonly since: number
  readonly until: number | null
}
