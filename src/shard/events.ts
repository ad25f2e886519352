import { decode } from '../atproto/cbor.ts'
import { isDataObject } from '../atproto/data.ts'
import { commitFrame, type FrameOp } from '../atproto/stream-frame.ts'
import { type Did, recordPlace, recordUri } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Turns } from '../lib/turns.ts'
import { boundaryNames } from '../service/boundary.ts'
import type { ActorAnswers, EventsCall, StatusCall } from '../service/calls.ts'
import { type Eyes, shownAction } from '../service/event-view.ts'
import { type Change, eventOp, type RecordOp } from '../store/actor-change.ts'
import { ActorEvents, type LoggedEvent } from '../store/actor-events.ts'
import type { Actors, OpenActor } from './actors.ts'
import { EventPages } from './event-pages.ts'
import { draftOf, lotOf } from './event-draft.ts'
import type { EventPush } from './messages.ts'

interface Parts {
  readonly actors: Actors
  readonly turns: Turns<Did>
  /** Boundaries that the service has: what an AppView may see at most. */
  readonly boundaries: readonly string[]
  /** Up to where processes before have vouched. */
  readonly vouched: number
  readonly push: (push: EventPush, bytes: Uint8Array<ArrayBuffer>) => void
}

/**
 * What the actors of one shard did, for streams. Pages are read from the log, which is the truth;
 * while anybody follows, each commit is sent along once it is stored, already as a frame, so that
 * whoever has read up to the one before need not ask.
 */
export class Events {
  readonly #parts: Parts
  readonly #eyes: Eyes
  /**
   * Where the log of an actor ends, of those that were looked at or wrote. It never shrinks: who
   * reads a head beside a write may have the older one.
   */
  readonly #last = new Map<Did, number>()
  readonly #pages = new EventPages()
  #following = false
  #vouched: number
  #pushes: EventPush['events'][number][] = []
  #frames: Uint8Array<ArrayBuffer>[] = []
  #bytes = 0

  constructor(parts: Parts) {
    this.#parts = parts
    this.#eyes = parts.boundaries
    this.#vouched = parts.vouched
  }

  /** Whether to send what is stored from now on. */
  follow(following: boolean): void {
    this.#following = following
    if (!following) this.#clear()
  }

  /** Where the log of an actor ends. */
  async last(did: Did): Promise<ActorAnswers['last']> {
    const known = this.#last.get(did)
    if (known !== undefined) return { seq: known }
    // While the handle is held: of who is erased meanwhile nothing is to be known.
    return await this.#parts.actors.use(did, async ({ head }) => ({
      seq: this.#reaches(did, head.seq),
    }))
  }

  /** Up to where somebody was told that nothing more comes, of whomever. */
  get vouched(): number {
    return this.#vouched
  }

  /** In the actor's turn: nothing of before may still be on its way into the log. */
  async vouch(did: Did, seq: number): Promise<ActorAnswers['vouch']> {
    return await this.#parts.turns.run(did, async () => {
      this.#vouched = Math.max(this.#vouched, seq)
      return await this.last(did)
    })
  }

  /** Forgets a slice of what is older than `time`. */
  async prune(did: Did, time: string): Promise<ActorAnswers['prune']> {
    return await this.#parts.turns.run(did, () =>
      this.#parts.actors.use(did, async ({ behind }) => {
        const pruned = await new ActorEvents(behind, did).prune(time, pruneMax)
        this.#pages.forget(did)
        return { pruned }
      }),
    )
  }

  /** Writes into the log that something was taken down, or is back. */
  async status(did: Did, status: StatusCall): Promise<ActorAnswers['status']> {
    return await this.#parts.turns.run(did, () =>
      this.#parts.actors.use(did, async (actor) => {
        const { path, takendown, nowMs } = status
        const boundaries = path === undefined ? [] : await boundariesAt(actor, path)
        const seq = Math.max(actor.head.seq + 1, this.#vouched + 1, nowMs * 1000)
        const facts = path === undefined ? { takendown } : { path, takendown }
        const event = { status: facts, boundaries }
        const time = new Date(nowMs).toISOString()
        await new ActorEvents(actor.behind, did).add(event, { before: actor.head, seq, time })
        actor.head = { ...actor.head, seq }
        this.grew(did, seq)
        return {}
      }),
    )
  }

  /** One page of frames after `after`, each for the eyes of the reader. */
  async page(did: Did, call: EventsCall): Promise<ActorAnswers['events']> {
    return await this.#parts.actors.use(did, async (actor) => {
      const head = actor.head.seq
      const { after, eyes, except } = call
      this.#reaches(did, head)
      if (eyes !== 'all' || except.length > 0) return await readPage(actor, call)
      return await this.#pages.of({ did, after, head }, () => readPage(actor, call))
    })
  }

  /** To be called for what was just stored, in its order. */
  stored(changes: readonly Change[]): void {
    for (const change of changes) {
      this.#grewTo(change.did, change.after.seq)
      if (this.#following) this.#push(change)
    }
  }

  /** The log of an actor has grown by other means: its readers have to look. */
  grew(did: Did, seq: number): void {
    this.#grewTo(did, seq)
    if (this.#following) this.#add({ did, prev: -1, seq, length: 0, isWhole: false })
  }

  gone(did: Did): void {
    this.#last.delete(did)
    this.#pages.forget(did)
  }

  #grewTo(did: Did, seq: number): void {
    this.#reaches(did, seq)
    this.#pages.forget(did)
  }

  /** Gives the end of the log, which is this far or further. */
  #reaches(did: Did, seq: number): number {
    const last = Math.max(this.#last.get(did) ?? 0, seq)
    this.#last.set(did, last)
    return last
  }

  #push(change: Change): void {
    const { did, before, after, time } = change
    const isWhole = change.ops.every((op) => shownAction(eventOp(op), this.#eyes) === op.action)
    const { seq, rev } = after
    const frame = commitFrame({ seq, did, time, rev, ops: change.ops.map(pushedOp) })
    const prev = before?.seq ?? 0
    this.#frames.push(frame)
    this.#add({ did, prev, seq, length: frame.length, isWhole })
  }

  #add(event: EventPush['events'][number]): void {
    this.#pushes.push(event)
    this.#bytes += event.length
    if (this.#bytes >= pushBytesMax) this.#flush()
    else if (this.#pushes.length === 1) setImmediate(() => this.#flush())
  }

  #flush(): void {
    if (this.#pushes.length === 0) return
    const bytes = joined(this.#frames)
    const events = this.#pushes
    this.#clear()
    this.#parts.push({ events }, bytes)
  }

  #clear(): void {
    this.#pushes = []
    this.#frames = []
    this.#bytes = 0
  }
}

function joined(frames: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  return Bun.concatArrayBuffers([...frames], Number.POSITIVE_INFINITY, true)
}

/** What a commit itself replaces, or deletes, goes without its content, as it does ever after. */
function pushedOp(op: RecordOp, index: number, ops: readonly RecordOp[]): FrameOp {
  const { action, put, uri } = op
  const path = `${op.collection}/${op.rkey}`
  if (put === undefined) return { action, path }
  const isLast = !ops.some((other, at) => at > index && other.uri === uri)
  return { action, path, cid: put.cid, record: isLast ? put.content : undefined }
}

/** One page for a stream: neither more rows, nor much more bytes. */
const eventsOfPageMax = 500
const pageBytesMax = 1024 * 1024
/** Frames that wait for others of their tick. */
const pushBytesMax = 256 * 1024
/** Some milliseconds. */
const pruneMax = 500

async function boundariesAt({ did, store }: OpenActor, path: string): Promise<readonly string[]> {
  const place = recordPlace(`at://${did}/${path}`)
  assert(place !== undefined, 'a record that is taken down has a place')
  const found = await store.record(recordUri(did, place.collection, place.rkey), 'all')
  const record = found === undefined ? undefined : decode(found.content)
  return isDataObject(record) ? boundaryNames(record['boundary']) : []
}

/** Rows, and up to where nothing is kept, of one moment: what is missing from rows is missing there. */
async function rowsAfter(seq: number, log: ActorEvents) {
  for (;;) {
    const pruned = await log.pruned()
    const rows = await log.after(seq, eventsOfPageMax)
    if ((await log.pruned()) === pruned) return { rows, pruned }
  }
}

async function readPage(
  { did, behind, head }: OpenActor,
  call: EventsCall,
): Promise<ActorAnswers['events']> {
  const log = new ActorEvents(behind, did)
  const { rows, pruned } = await rowsAfter(call.after, log)
  const frames: Uint8Array<ArrayBuffer>[] = []
  const seqs: number[] = []
  let bytes = 0
  let last = call.after
  for await (const { seq, frame } of framesOf(did, rows, { log, call })) {
    last = seq
    if (frame === undefined) continue
    frames.push(frame)
    seqs.push(seq)
    bytes += frame.length
    if (bytes >= pageBytesMax) break
  }
  const page = { seqs, lengths: frames.map(({ length }) => length), last, head: head.seq }
  return { bytes: joined(frames), ...page, pruned }
}

/** As far as they are taken; undefined of what the reader gets nothing of. */
async function* framesOf(
  did: Did,
  rows: readonly LoggedEvent[],
  { log, call }: { readonly log: ActorEvents; readonly call: EventsCall },
) {
  const drafts = rows.map((row) => draftOf(did, row, call))
  for (let lot = lotOf(drafts, 0), at = 0; lot.length > 0; lot = lotOf(drafts, at)) {
    const contents = await log.contents(lot.flatMap(({ wanted }) => [...wanted.keys()]))
    for (const { seq, frame } of lot) yield { seq, frame: frame?.(contents) }
    at += lot.length
  }
}
