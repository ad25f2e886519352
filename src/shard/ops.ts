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
  const { after } = call.from
  const start = call.from.start ?? { seq: head.seq, rev: head.rev, cid: head.cid }
  const rows = await store.present({ after, eyes: call.eyes, limit: call.limit + 1 })
  const ops: RepoOp[] = []
  let bytes = 0
  let last = after
  for (const { uri, cid, rev, content } of rows.slice(0, call.limit)) {
    if (bytes >= pageBytesMax) break
    bytes += content.length
    last = uri
    ops.push({ rev, ...placeOf(uri), cid, prev: null, ...valueOf(uri, content, call) })
  }
  const isWhole = ops.length === rows.length
  const next = isWhole ? undefined : ({ kind: 'present', after: last, start } as const)
  return { ops, seq: start.seq, commit: { cid: start.cid, rev: start.rev }, next }
}

/** @throws XrpcError 400 OutdatedCursor where the log does not reach back that far */
async function since({ did, behind, head }: OpenActor, call: OpsCall): Promise<Answer> {
  const log = new ActorEvents(behind, did)
  const from = call.from
  assert(from.kind !== 'present', 'asked for what was done')
  const at = from.kind === 'since' ? { seq: await log.seqOf(from.rev), index: 0 } : from
  if (at.seq < (await log.pruned())) throw outdated()
  const ops: RepoOp[] = []
  let bytes = 0
  let { seq, index } = at
  for (;;) {
    const rows = await log.after(seq, eventsAtOnce)
    for (const row of rows) {
      const found = opsOf(row)
      for (; index < found.length; index++) {
        const op = found[index]
        const shown = op === undefined ? undefined : await shownOp(did, { row, op }, { log, call })
        if (shown === undefined) continue
        // Of what the caller does not see nothing is told, not even by where a page ends.
        if (ops.length >= call.limit || bytes >= pageBytesMax) {
          const next = { kind: 'after', seq, index } as const
          return { ops, seq: head.seq, commit: commitOf(head), next }
        }
        bytes += shown.bytes
        ops.push(shown.op)
      }
      seq = row.seq
      index = 0
    }
    if (rows.length < eventsAtOnce) return { ops, seq, commit: commitOf(head), next: undefined }
  }
}

function commitOf({ cid, rev }: OpenActor['head']) {
  return { cid, rev }
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
  const content = (await log.contents(new Map([[op.path, cid]]))).get(op.path)
  if (content === undefined) return { op: facts, bytes: 0 }
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
const pageBytesMax = 1024 * 1024
