import { type AtUri, type Did, recordPlace, recordUri } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { IndexedOp, IndexEvent } from './event.ts'
import { type PostRow, postRow, RefusedPost } from './post-row.ts'

/** An account as one service has it. */
export interface Actor {
  readonly service: Did
  readonly did: Did
}

/** Where the index is with somebody who is enrolled. */
export interface Place {
  /** Of the last event; 0 where there is none yet. */
  readonly seq: number
  /** Their rows are going: none may be added. */
  readonly isClosed: boolean
}

export interface Parked extends Actor {
  readonly seq: number
  readonly error: string
  readonly frame: Uint8Array | undefined
}

/** What events come to, whatever was in between. Applied in the order of the members. */
export interface Changes {
  /** All posts of these go. */
  readonly cleared: readonly Actor[]
  /** Of these everything else goes, too. */
  readonly reset: readonly Actor[]
  /** Posts that changed in any way: where they were to be seen they are no more. */
  readonly touched: readonly { readonly service: Did; readonly uri: AtUri }[]
  /** Of these the ones that are gone, or were in between: such a post is a new one. */
  readonly removed: readonly { readonly service: Did; readonly uri: AtUri }[]
  readonly posts: readonly PostRow[]
  readonly takedowns: readonly Takedown[]
  readonly parked: readonly Parked[]
  readonly cursors: readonly (Actor & { readonly seq: number; readonly backfillDue: boolean })[]
}

interface Takedown extends Actor {
  /** `collection/rkey`, or empty for the whole repo. */
  readonly path: string
  readonly takendown: boolean
}

export const postCollection = 'zone.stratos.feed.post'

/** One text for an account of a service: neither has a space in it. */
export function actorKey({ service, did }: Actor): string {
  return `${service} ${did}`
}

/**
 * Takes events together to what they change. Invariants:
 *
 * - Of one actor events count in their order, and only those beyond the cursor; a reset always.
 * - Of actors who are not enrolled nothing counts: their rows are gone, and none come back.
 * - Of actors who are closed no post counts: they are due to be read anew.
 * - Of a repo that is taken down the posts go: they would stand in the way of those that are seen.
 * - The last operation on a URI counts, and one that is refused removes what was there: nobody sees
 *   an older form of a post that may have left their boundaries.
 *
 * For example, at cursor 3: events 3 (create a), 4 (create b), 5 (delete b), 6 (update a) come to the
 * removal of b, a as of 6, and cursor 6.
 * @param places where actors stand who are enrolled, by their key
 */
export function fold(
  events: readonly IndexEvent[],
  places: ReadonlyMap<string, Place>,
  nowMs: number,
): Changes {
  const folds = new Map<string, ActorFold>()
  for (const event of events) {
    const key = actorKey(event)
    const place = places.get(key)
    if (place === undefined) continue
    let actor = folds.get(key)
    if (actor === undefined) {
      actor = new ActorFold(event, place)
      folds.set(key, actor)
    }
    actor.add(event, nowMs)
  }
  const all = [...folds.values()].filter(({ hasMoved }) => hasMoved)
  const posts = all.flatMap(({ posts }) => [...posts])
  return {
    cleared: all.filter(({ isCleared }) => isCleared).map(({ actor }) => actor),
    reset: all.filter(({ isReset }) => isReset).map(({ actor }) => actor),
    touched: posts.map(([uri, { service }]) => ({ service, uri })),
    removed: posts.flatMap(([uri, { service, wasRemoved }]) =>
      wasRemoved ? [{ service, uri }] : [],
    ),
    posts: posts.flatMap(([, { row }]) => (row === undefined ? [] : [row])),
    takedowns: all.flatMap(({ actor, takedowns }) =>
      [...takedowns].map(([path, takendown]) => {
        const { service, did } = actor
        return { service, did, path, takendown }
      }),
    ),
    parked: all.flatMap(({ parked }) => parked),
    cursors: all.map(({ actor: { service, did }, seq, backfillDue }) => ({
      service,
      did,
      seq,
      backfillDue,
    })),
  }
}

/** An event that was refused as a whole: what it is about goes, and it is put aside. */
export function foldRefused(
  event: IndexEvent,
  places: ReadonlyMap<string, Place>,
  error: string,
): Changes {
  const removal = ({ collection, rkey }: IndexedOp) =>
    ({ action: 'delete', collection, rkey }) as const
  const gone = event.kind === 'commit' ? { ...event, ops: event.ops.map(removal) } : event
  const changes = fold([gone], places, 0)
  const { service, did } = event
  const frame = event.kind === 'commit' ? event.frame : undefined
  return {
    ...changes,
    parked: changes.cursors.map(({ seq }) => ({ service, did, seq, error, frame })),
  }
}

interface FoldedPost {
  readonly service: Did
  readonly row: PostRow | undefined
  readonly wasRemoved: boolean
}

class ActorFold {
  readonly actor: Actor
  /** The last state of each post; no row of those that are gone. */
  readonly posts = new Map<AtUri, FoldedPost>()
  readonly takedowns = new Map<string, boolean>()
  parked: Parked[] = []
  seq: number
  isCleared = false
  isReset = false
  /** Rows are missing. */
  backfillDue = false
  hasMoved = false
  readonly #isClosed: boolean

  constructor({ service, did }: Actor, { seq, isClosed }: Place) {
    this.actor = { service, did }
    this.seq = seq
    this.#isClosed = isClosed
  }

  add(event: IndexEvent, nowMs: number): void {
    if (event.kind !== 'reset' && event.seq <= this.seq) return
    this.seq = event.seq ?? this.seq
    this.hasMoved = true
    switch (event.kind) {
      case 'commit': {
        const reasons = new Set<string>()
        for (const op of event.ops) this.#apply(op, { nowMs, reasons })
        if (reasons.size === 0) return
        const { seq, frame } = event
        this.parked.push({ ...this.actor, seq, error: [...reasons].join('; '), frame })
        return
      }
      case 'status':
        this.takedowns.set(event.path, event.takendown)
        if (event.takendown) this.#takeDown(event.path)
        // What was withheld while it was taken down is not here.
        else if (isOfPosts(event.path)) this.backfillDue = true
        return
      case 'reset':
        this.#clear()
        this.isReset = true
        this.backfillDue = true
        this.takedowns.clear()
        this.parked =
          event.refused === undefined ? [] : [{ ...this.actor, seq: this.seq, ...event.refused }]
        return
      default:
        unreachable(event)
    }
  }

  #clear(): void {
    this.isCleared = true
    this.posts.clear()
  }

  #takeDown(path: string): void {
    if (path === '') return this.#clear()
    const { service, did } = this.actor
    const place = recordPlace(`at://${did}/${path}`)
    if (place?.collection !== postCollection) return
    const uri = recordUri(did, place.collection, place.rkey)
    this.posts.set(uri, { service, row: undefined, wasRemoved: true })
  }

  #apply(
    op: IndexedOp,
    { nowMs, reasons }: { readonly nowMs: number; readonly reasons: Set<string> },
  ): void {
    if (op.collection !== postCollection) return
    if (this.#isClosed) {
      this.backfillDue = true
      return
    }
    const { service, did } = this.actor
    const uri = recordUri(did, op.collection, op.rkey)
    const gone = { service, row: undefined, wasRemoved: true }
    if (op.action === 'delete') {
      this.posts.set(uri, gone)
      return
    }
    try {
      const { row, foreign } = postRow(this.actor, op, nowMs)
      if (foreign > 0) reasons.add('a post names boundaries of another service')
      const wasRemoved = this.posts.get(uri)?.wasRemoved ?? false
      this.posts.set(uri, { service, row, wasRemoved })
    } catch (error) {
      if (!(error instanceof RefusedPost)) throw error
      reasons.add(error.message)
      this.posts.set(uri, gone)
    }
  }
}

function isOfPosts(path: string): boolean {
  return path === '' || path.startsWith(`${postCollection}/`)
}
