import { afterAll, beforeAll, expect, test } from 'bun:test'
import fc from 'fast-check'
import { parseDid } from '../../src/atproto/syntax.ts'
import { openIndex } from '../../src/indexer/database.ts'
import type { IndexedOp, IndexEvent } from '../../src/indexer/event.ts'
import { IndexWriter } from '../../src/indexer/writer.ts'
import { otherService, post, put, remove, service } from '../kit/index-event.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { ModelIndex, rowsOf } from './model.ts'
import { killed, unindexable } from './trouble.ts'

let server: PostgresServer
beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})

const services = [service, otherService]
const dids = ['alice', 'bob'].map((name) => parseDid(`did:plc:${name.padEnd(24, 'a')}`))
const keys = ['k1', 'k2', 'k3']
const names = services.flatMap((one) => ['a', 'b'].map((name) => `${one}/${name}`))
const firstMs = Date.UTC(2026, 0, 1)

const record = fc
  .record({
    boundaries: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1 }),
    text: fc.constantFrom('one', 'two', 'three'),
    afterMs: fc.integer({ min: -5, max: 30 }),
    fault: fc.oneof(
      { weight: 12, arbitrary: fc.constant({}) },
      { weight: 1, arbitrary: fc.constantFrom(unindexable, { text: 7 }) },
    ),
  })
  .map(({ boundaries, text, afterMs, fault }) => {
    const createdAt = new Date(firstMs + afterMs).toISOString()
    return post(boundaries, { text, createdAt, ...fault })
  })
const op: fc.Arbitrary<IndexedOp> = fc
  .record({
    key: fc.constantFrom(...keys),
    other: fc.nat().map((number) => `refused${number}`),
    record: fc.option(record, { nil: undefined, freq: 3 }),
    action: fc.constantFrom('create' as const, 'update' as const),
  })
  .map(({ key, other, record: found, action }) => {
    if (found === undefined) return remove(key)
    // What another post takes the place of within a batch is never seen, and so not refused.
    return put('reply' in found ? other : key, found, action)
  })
const content = fc.oneof(
  { weight: 8, arbitrary: fc.record({ ops: fc.array(op, { maxLength: 4 }) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      path: fc.constantFrom('', 'zone.stratos.feed.post/k1'),
      takendown: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.constant('reset' as const) },
)
const event = fc.record({
  service: fc.constantFrom(...services),
  did: fc.constantFrom(...dids),
  /** From the last one of the actor on: what was there already comes again now and then. */
  step: fc.integer({ min: -1, max: 3 }),
  content,
})
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      events: fc.array(event, { minLength: 1, maxLength: 12 }),
      fate: fc.oneof(
        { weight: 6, arbitrary: fc.constant('stored' as const) },
        { weight: 1, arbitrary: fc.constantFrom('killed' as const, 'twice' as const) },
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('member' as const),
      service: fc.constantFrom(...services),
      did: fc.constantFrom(...dids),
      boundaries: fc.option(fc.uniqueArray(fc.constantFrom(...names)), {
        nil: undefined,
        freq: 3,
      }),
    }),
  },
)

/** Gives events their numbers: those of one actor mostly grow. */
class Numbers {
  readonly #last = new Map<string, number>()

  next({ service: at, did, step: by, content: what }: FoundEvent): IndexEvent {
    const key = `${at} ${did}`
    const last = this.#last.get(key) ?? 1
    const seq = Math.max(1, last + by)
    this.#last.set(key, what === 'reset' ? seq : Math.max(last, seq))
    const place = { service: at, did, seq }
    if (what === 'reset') return { kind: 'reset', ...place }
    if ('ops' in what) return { kind: 'commit', ...place, ops: what.ops }
    return { kind: 'status', ...place, ...what }
  }
}

type FoundEvent = typeof event extends fc.Arbitrary<infer Found> ? Found : never

test('the index has the rows of a plain index in memory, whatever comes and whatever breaks', async () => {
  let kills = 0
  const run = async (steps: (typeof step extends fc.Arbitrary<infer Found> ? Found : never)[]) => {
    const url = await server.database()
    const sql = await openIndex({ url, connectionsMax: 1 })
    const model = new ModelIndex()
    const numbers = new Numbers()
    let nowMs = firstMs
    const start = () => new IndexWriter({ index: { url }, now: () => nowMs })
    let writer = start()
    const enroll = async (at: (typeof services)[number], did: (typeof dids)[number]) => {
      const boundaries = [`${at}/a`]
      const enrolledAt = new Date(nowMs)
      await writer.setEnrollment({ service: at, did, serviceUrl: 's', enrolledAt, boundaries })
      model.enroll(at, did, boundaries)
    }
    for (const did of dids) for (const at of services) await enroll(at, did)
    for (const one of steps) {
      nowMs += 1
      if (one.kind === 'member') {
        const { service: at, did, boundaries } = one
        if (boundaries === undefined) {
          await writer.endEnrollment({ service: at, did })
          model.leave(at, did)
        } else {
          const enrolledAt = new Date(nowMs)
          await writer.setEnrollment({ service: at, did, serviceUrl: 's', enrolledAt, boundaries })
          model.enroll(at, did, boundaries)
        }
      } else {
        const events = one.events.map((found) => numbers.next(found))
        for (const given of events) model.apply(given, nowMs)
        // Only a batch that has something to store comes to where it is killed.
        const stores = events.some((given) => given.kind === 'commit' && given.ops.length > 0)
        if (one.fate === 'killed' && stores && kills < killsMax) {
          kills += 1
          await killed(url, () => writer.write(events))
        } else await writer.write(events)
        if (one.fate === 'twice' && !events.some(({ kind }) => kind === 'reset')) {
          // As after an end of the process between storing and knowing of it.
          await writer[Symbol.asyncDispose]()
          writer = start()
          await writer.write(events)
        }
      }
      expect(await rowsOf(sql)).toEqual(model.rows())
    }
    await writer[Symbol.asyncDispose]()
    await sql.end()
  }
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), run), {
    numRuns: 25,
    endOnFailure: true,
  })
  expect(kills).toBeGreaterThan(0)
}, 120_000)

const killsMax = 12
