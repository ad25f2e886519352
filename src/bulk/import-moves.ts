import { encode } from '../atproto/cbor.ts'
import { type Cid, cidForCbor, cidToString } from '../atproto/cid.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import {
  type BoundaryMap,
  type StrongRef,
  strongRefs,
  withBoundaries,
  withRefs,
} from '../service/moved-record.ts'
import { openSqlite, type Sqlite } from '../store/sqlite.ts'

interface Move {
  readonly id: number
  readonly was: Cid
  /** Null until it is known. */
  readonly becomes: Cid | null
}

interface Parts {
  /** Of a file for as long as this lives. */
  readonly path: string
  readonly did: Did
  readonly map: BoundaryMap
  /** As it came. */
  readonly record: (was: Cid) => DataObject
  /** Awaited for every record that is looked up. */
  readonly step: () => Promise<void>
}

/**
 * The new CIDs of records that come with other boundaries. What refers to such a record by its CID
 * becomes another record, too, and so on: a CID is known once all that its record refers to is. As a
 * CID is a hash of what it refers to, that comes to an end.
 */
export class ImportMoves implements AsyncDisposable {
  readonly #parts: Parts
  readonly #prefix: string
  /** Nothing of it is ever committed. */
  readonly #sqlite: Sqlite

  constructor(parts: Parts) {
    this.#parts = parts
    this.#prefix = `at://${parts.did}/`
    this.#sqlite = openSqlite(parts.path, { synchronous: 'normal', cacheKib, exclusive: true })
    this.#sqlite.begin()
    this.#sqlite.script(
      'create table move (id integer primary key, path text unique, was text, becomes text) strict',
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sqlite.undo()
    await this.#sqlite.close()
  }

  /** Every record has to be added before any is asked for. */
  add(path: string, was: Cid, record: DataObject): void {
    const moved = withBoundaries(record, this.#parts.map)
    const isAlone = this.#ownRefs(moved).length === 0
    const becomes = isAlone ? cidToString(cidForCbor(encode(moved))) : null
    const sql = 'insert into move (path, was, becomes) values ($1, $2, $3)'
    this.#sqlite.execute([{ sql, args: [path, was, becomes] }])
  }

  /** What becomes of a record. */
  async moved(record: DataObject): Promise<DataObject> {
    const moved = withBoundaries(record, this.#parts.map)
    for (const { id } of this.#due(moved)) await this.#resolve(id)
    return this.#withKnown(moved)
  }

  /** Without recursion: a thread may be longer than any stack is deep. */
  async #resolve(id: number): Promise<void> {
    const stack = [id]
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const { was, becomes } = this.#at(top)
      if (becomes !== null) {
        stack.pop()
        continue
      }
      await this.#parts.step()
      const moved = withBoundaries(this.#parts.record(was), this.#parts.map)
      const due = this.#due(moved)
      if (due.length > 0) {
        for (const one of due) stack.push(one.id)
        continue
      }
      const cid = cidToString(cidForCbor(encode(this.#withKnown(moved))))
      const sql = 'update move set becomes = $2 where id = $1'
      this.#sqlite.execute([{ sql, args: [top, cid], rows: 1 }])
    }
  }

  /** What a record refers to and is not known yet, each once. */
  #due(record: DataObject): Move[] {
    const moves = this.#ownRefs(record).flatMap((ref) => this.#moveOf(ref) ?? [])
    const due = moves.filter(({ becomes }) => becomes === null)
    return [...new Map(due.map((move) => [move.id, move])).values()]
  }

  #withKnown(record: DataObject): DataObject {
    if (this.#ownRefs(record).length === 0) return record
    const known = withRefs(record, (ref) => this.#moveOf(ref)?.becomes ?? undefined)
    assert(isDataObject(known), 'a record stays one')
    return known
  }

  #ownRefs(record: DataObject): StrongRef[] {
    return strongRefs(record).filter(({ uri }) => uri.startsWith(this.#prefix))
  }

  /** Undefined also where another version is meant than the one that comes along. */
  #moveOf({ uri, cid }: StrongRef): Move | undefined {
    if (!uri.startsWith(this.#prefix)) return undefined
    const sql = 'select id, was, becomes from move where path = $1'
    const [move] = this.#sqlite.query<Move>(sql, uri.slice(this.#prefix.length))
    return move?.was === cid ? move : undefined
  }

  #at(id: number): Move {
    const sql = 'select id, was, becomes from move where id = $1'
    const [move] = this.#sqlite.query<Move>(sql, id)
    assert(move !== undefined, 'what waits to be known was added')
    return move
  }
}

const cacheKib = 8 * 1024
