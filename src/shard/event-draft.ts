import type { Cid } from '../atproto/cid.ts'
import { commitFrame, type FrameOp, messageFrame } from '../atproto/stream-frame.ts'
import type { Did } from '../atproto/syntax.ts'
import type { EventsCall } from '../service/calls.ts'
import { type Eyes, shownAction } from '../service/event-view.ts'
import type { Contents, LoggedEvent } from '../store/actor-events.ts'

/** What a reader gets of one row of the log, but for the contents of its records. */
export interface Draft {
  readonly seq: number
  /** Paths of the records that it is to have, where they are still there. */
  readonly wanted: ReadonlyMap<string, Cid>
  /** Undefined of what the reader gets nothing of. */
  readonly frame: ((contents: Contents) => Uint8Array<ArrayBuffer>) | undefined
}

export function draftOf(
  did: Did,
  { seq, time, rev, event }: LoggedEvent,
  { eyes, except }: EventsCall,
): Draft {
  const nothing = { seq, wanted: new Map<string, Cid>(), frame: undefined }
  if ('status' in event) {
    const { status, boundaries } = event
    if (status.path !== undefined && !isAbout(boundaries, eyes)) return nothing
    return { ...nothing, frame: () => messageFrame('#status', { seq, did, time, ...status }) }
  }
  const shown: FrameOp[] = []
  const wanted = new Map<string, Cid>()
  for (const op of event.ops) {
    const action = shownAction(op, eyes)
    if (action === undefined) continue
    const { path, cid } = op
    shown.push(action === 'delete' || cid === null ? { action, path } : { action, path, cid })
    const isHidden = except === 'all' || except.some((uri) => uri === `at://${did}/${path}`)
    if (action !== 'delete' && cid !== null && !isHidden) wanted.set(path, cid)
    else wanted.delete(path)
  }
  if (shown.length === 0 && event.ops.length > 0) return nothing
  const frame = (contents: Contents) => {
    const ops = shown.map((op) => withRecord(op, { wanted, contents }))
    return commitFrame({ seq, did, time, rev, ops })
  }
  return { seq, wanted, frame }
}

/** Those from `start` on whose records are read at once: few, unless one of them has many. */
export function lotOf(drafts: readonly Draft[], start: number): readonly Draft[] {
  let end = start
  for (let records = 0; end < drafts.length; end++) {
    records += drafts[end]?.wanted.size ?? 0
    if (records > recordsAtOnce && end > start) break
  }
  return drafts.slice(start, end)
}

/** With their content: 16 MiB at most. */
const recordsAtOnce = 64

function isAbout(boundaries: readonly string[], eyes: Eyes): boolean {
  return eyes === 'all' || boundaries.some((one) => eyes.includes(one))
}

/** Of several with one path the last one has the record. */
function withRecord(
  op: FrameOp,
  { wanted, contents }: { readonly wanted: Draft['wanted']; readonly contents: Contents },
): FrameOp {
  if (op.cid === undefined || wanted.get(op.path) !== op.cid) return op
  const found = contents.get(op.path)
  return found?.cid === op.cid ? { ...op, record: found.content } : op
}
