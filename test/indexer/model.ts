import type { IndexSql } from '../../src/indexer/database.ts'
import type { IndexEvent } from '../../src/indexer/event.ts'
import type { PutOp } from '../../src/indexer/post-row.ts'
import { posts } from '../kit/index-event.ts'

/** All rows of an index, as lines in their order. */
export interface Rows {
  readonly posts: readonly string[]
  readonly boundaries: readonly string[]
  readonly enrollments: readonly string[]
  readonly cursors: readonly string[]
  readonly takedowns: readonly string[]
  readonly parked: readonly string[]
}

export async function rowsOf(sql: IndexSql): Promise<Rows> {
  const lines = async (text: string) =>
    (await sql.unsafe<{ line: string }[]>(`select ${text}`)).map(({ line }) => line).toSorted()
  const time = (column: string) => `round(extract(epoch from ${column}) * 1000)::bigint`
  return {
    posts:
      await lines(`concat_ws(' ', service, uri, cid, rkey, creator, text, encode(record, 'hex'),
      ${time('"indexedAt"')}, ${time('"sortAt"')}) as line from stratos_post`),
    boundaries: await lines(`concat_ws(' ', service, boundary, ${time('"sortAt"')}, uri, creator)
      as line from stratos_post_boundary`),
    enrollments: await lines(
      `concat_ws(' ', service, did, array_to_string(boundaries, ',')) as line from stratos_enrollment`,
    ),
    cursors: await lines(
      `concat_ws(' ', service, did, seq, "backfillDue") as line from stratos_sync_cursor`,
    ),
    takedowns: await lines(`concat_ws(' ', service, did, path) as line from stratos_takedown`),
    parked: await lines(`concat_ws(' ', service, did, seq) as line from stratos_parked_event`),
  }
}

interface ModelPost {
  readonly op: PutOp
  readonly indexedAtMs: number
}

interface ModelActor {
  boundaries: readonly string[]
  seq: number
  backfillDue: boolean
  posts: Map<string, ModelPost>
  takedowns: Set<string>
  parked: Set<number>
}

/** The index as a reader of the contract would keep it in memory, one event after the other. */
export class ModelIndex {
  readonly #actors = new Map<string, ModelActor>()

  enroll(service: string, did: string, boundaries: readonly string[]): void {
    const there = this.#actors.get(`${service} ${did}`)
    const own = boundaries.filter((name) => name.startsWith(`${service}/`))
    if (there !== undefined) there.boundaries = own
    else this.#actors.set(`${service} ${did}`, { ...nothing(), boundaries: own })
  }

  leave(service: string, did: string): void {
    this.#actors.delete(`${service} ${did}`)
  }

  apply(event: IndexEvent, nowMs: number): void {
    const actor = this.#actors.get(`${event.service} ${event.did}`)
    if (actor === undefined) return
    if (event.kind === 'reset') {
      const before = actor.seq
      Object.assign(actor, { ...nothing(), boundaries: actor.boundaries })
      actor.seq = event.seq ?? before
      actor.backfillDue = true
      return
    }
    if (event.seq <= actor.seq) return
    actor.seq = event.seq
    if (event.kind === 'status') {
      if (event.takendown) {
        actor.takedowns.add(event.path)
        if (event.path === '') actor.posts.clear()
        else if (event.path.startsWith(`${posts}/`))
          actor.posts.delete(event.path.slice(posts.length + 1))
      } else {
        actor.takedowns.delete(event.path)
        actor.backfillDue = true
      }
      return
    }
    // What the database refuses it refuses for the whole event.
    const isRefused = event.ops.some((op) => 'record' in op && isPoison(op))
    for (const op of event.ops) {
      if (op.collection !== posts) continue
      const isFit = 'record' in op && !isRefused && typeof op.record['text'] === 'string'
      if (!isFit) actor.posts.delete(op.rkey)
      if ('record' in op && (!isFit || namesOf(op).some((name) => !isOf(event.service, name)))) {
        actor.parked.add(event.seq)
      }
      if (!isFit) continue
      const indexedAtMs = actor.posts.get(op.rkey)?.indexedAtMs ?? nowMs
      actor.posts.set(op.rkey, { op, indexedAtMs })
    }
  }

  rows(): Rows {
    const all = [...this.#actors].map(([key, actor]) => {
      const [service = '', did = ''] = key.split(' ')
      return Object.assign({ key, service, did }, actor)
    })
    const each = all.flatMap(({ service, did, posts: own }) =>
      [...own.values()].map((one) => Object.assign({ service, did }, one, shownOf(did, one))),
    )
    return {
      posts: each
        .map(({ service, did, op, uri, indexedAtMs, sortAtMs }) =>
          [
            service,
            uri,
            op.cid,
            op.rkey,
            did,
            textOf(op.record['text']),
            op.content.toHex(),
            indexedAtMs,
            sortAtMs,
          ].join(' '),
        )
        .toSorted(),
      boundaries: each
        .flatMap(({ service, did, op, uri, sortAtMs }) =>
          namesOf(op)
            .filter((name) => isOf(service, name))
            .map((name) => `${service} ${name} ${sortAtMs} ${uri} ${did}`),
        )
        .toSorted(),
      enrollments: all.map(({ key, boundaries }) => `${key} ${boundaries.join(',')}`).toSorted(),
      cursors: all
        .filter(({ seq }) => seq > 0)
        .map(({ key, seq, backfillDue }) => `${key} ${seq} ${backfillDue ? 't' : 'f'}`)
        .toSorted(),
      takedowns: all
        .flatMap(({ key, takedowns }) => [...takedowns].map((path) => `${key} ${path}`))
        .toSorted(),
      parked: all
        .flatMap(({ key, parked }) => [...parked].map((seq) => `${key} ${seq}`))
        .toSorted(),
    }
  }
}

function nothing(): ModelActor {
  return {
    boundaries: [],
    seq: 0,
    backfillDue: false,
    posts: new Map(),
    takedowns: new Set(),
    parked: new Set(),
  }
}

function shownOf(did: string, { op, indexedAtMs }: ModelPost) {
  const said = Date.parse(textOf(op.record['createdAt']))
  const uri = `at://${did}/${posts}/${op.rkey}`
  return { uri, sortAtMs: Math.min(Number.isNaN(said) ? indexedAtMs : said, indexedAtMs) }
}

function isOf(service: string, name: string): boolean {
  return name.startsWith(`${service}/`)
}

function namesOf({ record }: PutOp): string[] {
  const { values }: { values?: unknown } = Object(record['boundary'])
  return Array.isArray(values) ? values.map((one: unknown) => String(Object(one).value)) : []
}

function isPoison({ record }: PutOp): boolean {
  return 'reply' in record
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
