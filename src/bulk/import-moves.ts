import { decode, encode } from '../atproto/cbor.ts'
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
import type { Sqlite } from '../store/sqlite.ts'

interface Move {
  readonly was: Cid
  /** Null until it is known. */
  readonly becomes: Cid | null
}

interface Parts {
  readonly sqlite: Sqlite
  readonly did: Did
  readonly map: BoundaryMap
  readonly content: (cid: Cid) => Uint8Array
}

/**
 * The new CIDs of records that come with other boundaries. What refers to such a record by its CID
 * becomes another record, too, and so on: a CID is known once all that its record refers to is. As a
 * CID is a hash of what it refers to, that comes to an end.
 */
export class ImportMoves {
  readonly #parts: Parts
  readonly #prefix: string

  /** The moves are kept in a table of this handle alone. */
  constructor(parts: Parts) {
    this.#parts = parts
    this.#prefix = `at://${parts.did}/`
    parts.sqlite.script(
      'create temp table move (path text primary key, was text, becomes text) without rowid',
    )
  }

  /** Every record has to be added before any is asked for. */
  add(path: string, was: Cid, record: DataObject): void {
    const moved = withBoundaries(record, this.#parts.map)
    const isAlone = this.#ownRefs(moved).length === 0
    const becomes = isAlone ? cidToString(cidForCbor(encode(moved))) : null
    const sql = 'insert into move (path, was, becomes) values ($1, $2, $3)'
    this.#parts.sqlite.execute([{ sql, args: [path, was, becomes] }])
  }

  /** What becomes of a record. */
  moved(record: DataObject): DataObject {
    const moved = withBoundaries(record, this.#parts.map)
    if (this.#ownRefs(moved).length === 0) return moved
    const result = withRefs(moved, (ref) => this.#becomes(ref))
    assert(isDataObject(result), 'a record stays one')
    return result
  }

  #becomes(ref: StrongRef): Cid | undefined {
    const move = this.#moveOf(ref)
    if (move === undefined) return undefined
    return move.becomes ?? this.#resolve(this.#pathOf(ref))
  }

  /** Without recursion: a thread may be longer than any stack is deep. */
  #resolve(path: string): Cid {
    const stack = [path]
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const move = this.#find(top)
      assert(move !== undefined, 'what waits to be known was added')
      if (move.becomes !== null) {
        stack.pop()
        continue
      }
      const record = decode(this.#parts.content(move.was))
      assert(isDataObject(record), 'a record is a map')
      const moved = withBoundaries(record, this.#parts.map)
      const due = this.#ownRefs(moved).filter((ref) => this.#moveOf(ref)?.becomes === null)
      if (due.length > 0) {
        stack.push(...due.map((ref) => this.#pathOf(ref)))
        continue
      }
      const becomes = withRefs(moved, (ref) => this.#moveOf(ref)?.becomes ?? undefined)
      this.#settle(top, cidToString(cidForCbor(encode(becomes))))
    }
    const becomes = this.#find(path)?.becomes
    assert(becomes !== undefined && becomes !== null, 'it is known now')
    return becomes
  }

  #settle(path: string, becomes: Cid): void {
    const sql = 'update move set becomes = $2 where path = $1'
    this.#parts.sqlite.execute([{ sql, args: [path, becomes], rows: 1 }])
  }

  #ownRefs(record: DataObject): StrongRef[] {
    return strongRefs(record).filter(({ uri }) => uri.startsWith(this.#prefix))
  }

  #pathOf({ uri }: StrongRef): string {
    return uri.slice(this.#prefix.length)
  }

  /** Undefined also where another version is meant than the one that comes along. */
  #moveOf(ref: StrongRef): Move | undefined {
    const move = ref.uri.startsWith(this.#prefix) ? this.#find(this.#pathOf(ref)) : undefined
    return move?.was === ref.cid ? move : undefined
  }

  #find(path: string): Move | undefined {
    const sql = 'select was, becomes from move where path = $1'
    return this.#parts.sqlite.query<Move>(sql, path)[0]
  }
}
