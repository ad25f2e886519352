import { decode } from '../atproto/cbor.ts'
import { isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { AtUri, Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { ActorAnswers, OpsCall, RepoOp } from '../service/calls.ts'
import { shownAction } from '../service/event-view.ts'
import type { EventOp } from '../store/actor-change.ts'
import { ActorEvents, type LoggedEvent } from '../store/actor-events.ts'
import type { Actors, OpenActor } from './actors.ts'

type Answer = ActorAnswers['ops']

/**
 * What a repo holds, and what was done to it since, a page at a time: for whoever pulls instead of
 * following a stream.
 */
export class Ops {
  readonly #actors: Actors

  constructor(actors: Actors) {
    this.#actors = actors
  }

  async page(did: Did, call: OpsCall): Promise<Answer> {
    return await this.#actors.use(did, (actor) =>
      call.from.kind === 'present' ? present(actor, call) : since(actor, call),
    )
  }
}

/** Records that are there now. Where to go on afterwards is where the repo stood at the first page. */
async function present({ store, head }: OpenActor, call: OpsCall): Promise<Answer> {
  assert(call.from.kind === 'present', 'asked for what is present')
  const start = call.from.start ?? { seq: head.seq, commit: { cid: head.cid, rev: head.rev } }
  const ops: RepoOp[] = []
  let bytes = 0
  for (let { after } = call.from; ;) {
    const limit = Math.min(call.limit - ops.length + 1, recordsAtOnce)
    const rows = await store.present({ after, eyes: call.eyes, limit })
    for (const { uri, cid, rev, content } of rows) {
      if (ops.length === call.limit || bytes >= pageBytesMax) {
        return { ...start, ops, next: { kind: 'present', after, start } }
      }
      if (call.values === 'along') bytes += content.length
      after = uri
      ops.push({ rev, ...placeOf(uri), cid, prev: null, ...valueOf(uri, content, call) })
    }
    if (rows.length < limit) return { ...start, ops, next: undefined }
  }
}

/** @throws XrpcError 400 OutdatedCursor where the log does not reach back that far */
async function since({ did, behind, head }: OpenActor, call: OpsCall): Promise<Answer> {
  const log = new ActorEvents(behind, did)
  const { from } = call
  assert(from.kind !== 'present', 'asked for what was done')
  const at = from.kind === 'since' ? await log.seqOf(from.rev) : from.seq
  const commit = { cid: head.cid, rev: head.rev }
  const ops: RepoOp[] = []
  let bytes = 0
  /** Where the next page begins: nothing in it is of what the caller does not see. */
  let told = { seq: at, count: from.kind === 'after' ? from.count : 0 }
  // An event of which a part is known is read once more.
  for (let seq = from.kind === 'after' ? at - 1 : at; ;) {
    const rows = await log.after(seq, eventsAtOnce)
    if (seq < (await log.pruned())) throw outdated()
    for (const row of rows) {
      // What was stored since `head` was read is for another time.
      if (row.seq > head.seq) break
      seq = row.seq
      let count = 0
      for (const op of opsOf(row)) {
        const shown = await shownOp(did, { row, op }, { log, call })
        if (shown === undefined) continue
        count += 1
        if (row.seq === told.seq && count <= told.count) continue
        if (ops.length === call.limit || bytes >= pageBytesMax) {
          return { ops, seq: told.seq - 1, commit, next: { kind: 'after', ...told } }
        }
        told = { seq: row.seq, count }
        bytes += shown.bytes
        ops.push(shown.op)
      }
    }
    const isEnd = rows.length < eventsAtOnce || seq >= head.seq
    if (isEnd) return { ops, seq: head.seq, commit, next: undefined }
  }
}

function opsOf({ event }: LoggedEvent): readonly EventOp[] {
  return 'ops' in event ? event.ops : []
}

async function shownOp(
  did: Did,
  { row, op }: { readonly row: LoggedEvent; readonly op: EventOp },
  { log, call }: { readonly log: ActorEvents; readonly call: OpsCall },
): Promise<{ readonly op: RepoOp; readonly bytes: number } | undefined> {
  const action = shownAction(op, call.eyes)
  if (action === undefined) return undefined
  const uri = `at://${did}/${op.path}`
  const cid = action === 'delete' ? null : op.cid
  const facts = { rev: row.rev, ...placeOf(uri), cid, prev: action === 'create' ? null : op.prev }
  if (cid === null || call.values === 'left-out') return { op: facts, bytes: 0 }
  const found = (await log.contents([op.path])).get(op.path)
  if (found?.cid !== cid) return { op: facts, bytes: 0 }
  const { content } = found
  return { op: { ...facts, ...valueOf(uri, content, call) }, bytes: content.length }
}

function valueOf(
  uri: string,
  content: Uint8Array,
  { values, except }: OpsCall,
): Pick<RepoOp, 'value'> {
  if (values === 'left-out' || except === 'all' || except.some((one) => one === uri)) return {}
  const value = decode(content)
  assert(isDataObject(value), 'a record is a map')
  return { value }
}

function placeOf(uri: AtUri | string) {
  const [collection = '', rkey = ''] = uri.split('/').slice(-2)
  return { collection, rkey }
}

function outdated(): XrpcError {
  const message = 'what was done since then is no longer kept: begin without since'
  return new XrpcError(400, 'OutdatedCursor', message)
}

const eventsAtOnce = 500
/** With their content: 16 MiB at most. */
const recordsAtOnce = 64
const pageBytesMax = 1024 * 1024
