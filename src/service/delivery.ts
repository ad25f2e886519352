import { enrollmentCollection } from '../atproto/enrollment.ts'
import type { Did } from '../atproto/syntax.ts'
import { recordUri } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import {
  type Pds,
  type PdsPlace,
  PdsRejected,
  PdsUnavailable,
  SessionLost,
  SwapMismatch,
} from '../remote/pds.ts'
import type { Budget, OutboxRow } from '../store/actor-outbox.ts'
import { pointsOf, spend, type Spending } from './budget.ts'
import type { RowOutcome } from './calls.ts'
import type { OutboxSource } from './outbox-source.ts'

/** How far the delivery of one actor's outbox got. */
export type Delivery =
  | { readonly kind: 'empty' }
  | { readonly kind: 'later'; readonly waitMs: number }
  | { readonly kind: 'session-lost' }
  /** Only time, or the person, can help. */
  | { readonly kind: 'stuck' }

interface Job {
  readonly did: Did
  readonly source: OutboxSource
  readonly spending: Spending
  /** The person's public repo. */
  readonly pds: Pds
  readonly service: string
  readonly troubled: ((did: Did) => void) | undefined
  readonly log: Log
  readonly stopped: () => boolean
  /** A row was dealt with, for the counters. */
  readonly count: (outcome: RowOutcome['kind']) => void
}

/**
 * Delivers the oldest rows of an actor one by one, in order, until one has to wait. It is the turn
 * of others after some rows or some time: slow PDSes must not hold up the rest.
 */
export async function deliver(job: Job): Promise<Delivery> {
  const { source, spending, pds } = job
  const endMs = Date.now() + turnMs
  const { rows, budget } = await source.read(rowsAtOnce)
  let left = budget
  for (const row of rows) {
    const nowMs = Date.now()
    if (job.stopped() || nowMs > endMs) break
    left = spending.now(left, nowMs)
    const waitMs = Math.max(
      row.nextAttemptAtMs - nowMs,
      spending.waitMs(left, pointsOf(row)),
      pds.pauseUntilMs - nowMs,
    )
    if (waitMs > 0) return { kind: 'later', waitMs }
    const purse = new Purse(left)
    const outcome = await deliverRow(job, row, purse)
    if (outcome !== 'delivered') return outcome
    left = purse.budget
  }
  if (rows.length === 0) return { kind: 'empty' }
  // Also where no row is left: the next one may come in a moment.
  return { kind: 'later', waitMs: Math.max(0, pds.pauseUntilMs - Date.now()) }
}

type Visit = Job & { readonly purse: Purse }

/** What a row may cost, and did. */
class Purse {
  budget: Budget

  constructor(budget: Budget) {
    this.budget = budget
  }

  spend(points: number): void {
    this.budget = spend(this.budget, points)
  }
}

const rowsAtOnce = 20
const turnMs = 5_000

async function deliverRow(job: Job, row: OutboxRow, purse: Purse): Promise<'delivered' | Delivery> {
  const { did, source, log } = job
  const { collection, rkey } = row
  const report = async (outcome: RowOutcome) => {
    await source.report(key(row), outcome, purse.budget)
    job.count(outcome.kind)
  }
  try {
    const pdsCid = await settle({ ...job, purse }, row)
    await report({ kind: 'settled', pdsCid })
    log.debug('outbox.delivered', { did, collection, rkey })
    return 'delivered'
  } catch (error) {
    if (!(error instanceof Occupied)) job.troubled?.(did)
    if (error instanceof SessionLost) return { kind: 'session-lost' }
    if (error instanceof PdsUnavailable) {
      const { attempts: attempt } = row
      const random = Math.random()
      const own = backoffMs({ attempt, firstMs: 1_000, mostMs: 900_000, random })
      const waitMs = Math.max(own, error.retryAfterMs ?? 0)
      const nextAttemptAtMs = Date.now() + waitMs
      await report({ kind: 'postponed', nextAttemptAtMs })
      log.info('outbox.postponed', { did, collection, rkey, attempt, waitMs })
      return { kind: 'later', waitMs }
    }
    const reason = parkingReason(error)
    await report({ kind: 'parked', reason })
    log.warn('outbox.parked', { did, collection, rkey, reason })
    return 'delivered'
  }
}

/** @throws the error itself when it is no refusal by the PDS */
function parkingReason(error: unknown): string {
  if (error instanceof Occupied) return 'another record stands at this key on the PDS'
  if (error instanceof PdsRejected) return `the PDS refused: ${error.status} ${error.error}`
  throw error
}

/** Brings the key on the PDS to what the row wants; the CID that then stands there, or null. */
async function settle(job: Visit, row: OutboxRow): Promise<string | null> {
  const place = { repo: job.did, collection: row.collection, rkey: row.rkey }
  if (row.record === null && row.pdsCid === null) return await reconcile(job, row)
  try {
    return await write(job, row, { place, swapRecord: row.pdsCid })
  } catch (error) {
    if (!(error instanceof SwapMismatch)) throw error
    return await reconcile(job, row)
  }
}

/**
 * What stands on the PDS is not what we remember: a report of ours was lost by a kill, the person
 * changed something, or another program did. Only what is recognizably ours is replaced.
 */
async function reconcile(job: Visit, row: OutboxRow): Promise<string | null> {
  const place = { repo: job.did, collection: row.collection, rkey: row.rkey }
  const present = await job.pds.getRecord(place)
  if (present === undefined) {
    return row.record === null ? null : await write(job, row, { place, swapRecord: null })
  }
  if (!isOurs(present.value, job, row)) {
    if (row.record === null) return null
    throw new Occupied()
  }
  if (row.record !== null && Bun.deepEquals(present.value, JSON.parse(row.record))) {
    return present.cid
  }
  return await write(job, row, { place, swapRecord: present.cid })
}

async function write(
  { pds, purse }: Visit,
  row: OutboxRow,
  at: { readonly place: PdsPlace; readonly swapRecord: string | null },
): Promise<string | null> {
  // Whatever comes of it: the PDS counts what it refuses, too.
  const spendFor = (record: string | null) =>
    purse.spend(pointsOf({ record, pdsCid: at.swapRecord }))
  if (row.record === null) {
    if (at.swapRecord === null) return null
    spendFor(null)
    await pds.deleteRecord({ ...at.place, swapRecord: at.swapRecord })
    return null
  }
  spendFor(row.record)
  const record: object = JSON.parse(row.record)
  const { cid } = await pds.putRecord({ ...at.place, record, swapRecord: at.swapRecord })
  return cid
}

/** Nobody else writes enrollment records under our DID; a stub names us and the record itself. */
function isOurs(value: unknown, { did, service }: Job, row: OutboxRow): boolean {
  if (member(value, '$type') !== row.collection) return false
  if (row.collection === enrollmentCollection) return true
  const source = member(value, 'source')
  return (
    member(source, 'service') === service &&
    member(member(source, 'subject'), 'uri') === recordUri(did, row.collection, row.rkey)
  )
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

function key({ collection, rkey, position }: OutboxRow) {
  return { collection, rkey, position }
}

class Occupied extends Error {
  override readonly name = 'Occupied'
}
