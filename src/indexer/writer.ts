import type { Did } from '../atproto/syntax.ts'
import { resetStatements } from './apply.ts'
import { clear } from './clearing.ts'
import type { IndexEvent } from './event.ts'
import { type Actor, actorKey, type Parked } from './fold.ts'
import { Lane } from './lane.ts'
import { belongsTo, rowsJson } from './post-row.ts'
import type { IndexTransaction, SessionOptions } from './session.ts'

export interface Member extends Actor {
  /** Public URL of the service. */
  readonly serviceUrl: string
  readonly boundaries: readonly string[]
  /** Counts for whoever was not enrolled before. */
  readonly enrolledAt: Date
}

interface Heard {
  readonly service: Did
  readonly serviceUrl: string
  readonly at: Date
}

interface WriterParts {
  /** Its lock and the numbers after it are held while it writes. */
  readonly index: SessionOptions
  readonly now?: () => number
  /** Learns of a try that failed and is made again. */
  readonly delayed?: (error: unknown) => void
  /** Learns of events that were put aside, for the log. */
  readonly parked?: (event: Parked) => void
}

/**
 * The one way into the index for what streams tell. Invariants:
 *
 * - Of one actor what is given takes effect in the order in which it is given, each batch in one
 *   transaction with its cursors: after a crash, a stream that goes on from the cursors misses and
 *   doubles nothing.
 * - Of one actor what was given before is stored, or nothing that was given later is. A failure that
 *   passes is waited out; after any other nothing more is taken of anybody, as a later event would
 *   move the cursor past what was lost.
 *
 * Actors do not wait for each other: each has its lane, always the same one, and while the server
 * works or waits for its disk in one lane, the next batch of another one is made ready.
 *
 * For example: of batches A and B the connection breaks while A commits. A is tried again, whether it
 * was stored or not; if it was, its events are at the cursor and change nothing. Then comes B.
 */
export class IndexWriter implements AsyncDisposable {
  readonly #lanes: readonly [Lane, ...Lane[]]
  readonly #now: () => number

  constructor({ index, now = Date.now, delayed, parked }: WriterParts) {
    this.#now = now
    const broken = (error: unknown) => {
      for (const lane of this.#lanes) lane.break(error)
    }
    const lane = (number: number) => {
      const locked = index.lock === undefined ? index : { ...index, lock: index.lock + number }
      return new Lane({ index: locked, now, delayed, parked, broken })
    }
    const others = Array.from({ length: lanesCount - 1 }, (_, at) => lane(at + 1))
    this.#lanes = [lane(0), ...others]
  }

  /** Resolves when all are stored: whoever waits for it before reading on is never too fast. */
  async write(events: readonly IndexEvent[]): Promise<void> {
    const parts = Map.groupBy(events, (event) => this.#laneOf(event))
    await Promise.all([...parts].map(([lane, part]) => lane.write(part)))
  }

  /** Resolves when the index can be written. @throws LockTaken */
  async open(): Promise<void> {
    // One after the other: of two processes that start together one gets them all.
    for (const lane of this.#lanes) await lane.task(async () => undefined)
  }

  /** Runs in a transaction of its own, between those of what streams tell. */
  async task(run: (transaction: IndexTransaction) => Promise<void>): Promise<void> {
    await this.#lanes[0].task(run)
  }

  /** How accounts stand from now on: enrolled, with these boundaries. Each is named once. */
  async setEnrollments(members: readonly Member[]): Promise<void> {
    const parts = Map.groupBy(members, (member) => this.#laneOf(member))
    await Promise.all([...parts].map(([lane, part]) => this.#setEnrollments(lane, part)))
  }

  async #setEnrollments(lane: Lane, members: readonly Member[]): Promise<void> {
    const rows = members.map(({ service, did, serviceUrl, boundaries, enrolledAt }) => {
      const own = boundaries.filter((name) => belongsTo(service, name))
      return { service, did, serviceUrl, enrolledAt, boundaries: [...new Set(own)] }
    })
    await lane.task(async (transaction) => {
      const { sql } = transaction
      await transaction.run(sql`
        insert into stratos_enrollment
          (service, did, "serviceUrl", "enrolledAt", "lastChecked", boundaries)
        select service, did, "serviceUrl", "enrolledAt", ${new Date(this.#now())}::timestamptz,
          boundaries
        from json_to_recordset(${rowsJson(rows)}::text::json) as m(service text, did text,
          "serviceUrl" text, "enrolledAt" timestamptz, boundaries text[])
        order by service, did
        on conflict (service, did) do update set "serviceUrl" = excluded."serviceUrl",
          "lastChecked" = excluded."lastChecked", boundaries = excluded.boundaries`)
    })
  }

  async setEnrollment(member: Member): Promise<void> {
    await this.setEnrollments([member])
  }

  /** An account has left: all that the index has of it goes, and what still comes is passed over. */
  async endEnrollment({ service, did }: Actor): Promise<void> {
    await this.#laneOf({ service, did }).task(async (transaction) => {
      const { sql } = transaction
      // From here on nobody sees the rest, and nobody adds to it.
      await transaction.run(sql`
        delete from stratos_enrollment where service = ${service} and did = ${did}`)
      await clear(transaction, { service, did })
      const statements = [
        ...resetStatements(sql, { service, did }),
        sql`delete from stratos_sync_cursor where service = ${service} and did = ${did}`,
        sql`delete from stratos_backfill_page where service = ${service} and did = ${did}`,
      ]
      for (const statement of statements) await transaction.run(statement)
    })
  }

  /** Everything that a service had to say until `at` was given before, and is stored by then. */
  async heard({ service, serviceUrl, at }: Heard): Promise<void> {
    const [first, ...others] = this.#lanes
    const before = Promise.all(others.map((lane) => lane.idle()))
    await first.task(async (transaction) => {
      const { sql } = transaction
      await transaction.run(sql`
        insert into stratos_service_state (service, "serviceUrl", "heardAt")
        values (${service}, ${serviceUrl}, ${at})
        on conflict (service) do update set "serviceUrl" = excluded."serviceUrl",
          "heardAt" = excluded."heardAt"`)
    }, before)
  }

  /** Stores what was given, unless the database is away: then that is refused. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const lane of this.#lanes) lane.stop()
    await Promise.all(this.#lanes.map((lane) => lane[Symbol.asyncDispose]()))
  }

  #laneOf(actor: Actor): Lane {
    return this.#lanes[Bun.hash.crc32(actorKey(actor)) % lanesCount] ?? this.#lanes[0]
  }
}

/** On two busy cores a tenth faster than two. Each is a connection more for the server. */
const lanesCount = 3
