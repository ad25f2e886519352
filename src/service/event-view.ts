import type { FrameOp } from '../atproto/stream-frame.ts'
import type { EventOp } from '../store/actor-change.ts'

/** Whose eyes an event is for: everybody's, or those of readers in one of these boundaries. */
export type Eyes = 'all' | readonly string[]

/**
 * What an operation is to a reader who sees only the records of some boundaries: one that comes in
 * is created and one that leaves is deleted, whatever it was; undefined of what they never see.
 */
export function shownAction(
  { action, prev, before, after }: EventOp,
  eyes: Eyes,
): FrameOp['action'] | undefined {
  if (eyes === 'all') return action
  const saw = prev !== null && before.some((name) => eyes.includes(name))
  const sees = action !== 'delete' && after.some((name) => eyes.includes(name))
  if (sees) return saw ? 'update' : 'create'
  return saw ? 'delete' : undefined
}
