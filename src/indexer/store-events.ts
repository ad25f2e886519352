import { applyChanges, lockActors } from './apply.ts'
import type { IndexEvent } from './event.ts'
import { actorKey, type Changes, fold, foldRefused, type Parked, type Place } from './fold.ts'
import { failureKind, reasonOf } from './refusal.ts'
import type { IndexSession, IndexTransaction } from './session.ts'

/**
 * Stores a batch of events with its cursors in one transaction. What the database refuses is put
 * aside, and the rest is stored.
 * @returns events that were put aside, whole or in part
 */
export async function storeEvents(
  session: IndexSession,
  events: readonly IndexEvent[],
  nowMs: number,
): Promise<readonly Parked[]> {
  const actors = [...new Map(events.map((event) => [actorKey(event), event])).values()]
  const named = actors.map(({ service, did }) => ({ service, did }))
  try {
    return await session.begin(async (transaction) => {
      const places = await lockActors(transaction, named)
      const changes = fold(events, places, nowMs)
      await applyChanges(transaction, changes, nowMs)
      return changes.parked
    })
  } catch (error) {
    if (failureKind(error) !== 'refused') throw error
    return await session.begin(async (transaction) => {
      const places = await lockActors(transaction, named)
      return await storeParts(transaction, events, { places, nowMs })
    })
  }
}

/**
 * Stores what can be stored of events, some of which the database refuses: halves of them again and
 * again, until one alone is refused and is put aside.
 * @returns those that were
 */
async function storeParts(
  transaction: IndexTransaction,
  events: readonly IndexEvent[],
  at: { readonly places: Map<string, Place>; readonly nowMs: number },
): Promise<readonly Parked[]> {
  const { places, nowMs } = at
  const stored = async (changes: Changes) => {
    await transaction.savepoint((inner) => applyChanges(inner, changes, nowMs))
    for (const cursor of changes.cursors) {
      const key = actorKey(cursor)
      places.set(key, { seq: cursor.seq, isClosed: places.get(key)?.isClosed === true })
    }
    return changes.parked
  }
  try {
    return await stored(fold(events, places, nowMs))
  } catch (error) {
    if (failureKind(error) !== 'refused') throw error
    const [only] = events
    if (only !== undefined && events.length === 1) {
      return await stored(foldRefused(only, places, reasonOf(error)))
    }
  }
  const half = Math.ceil(events.length / 2)
  const first = await storeParts(transaction, events.slice(0, half), at)
  const second = await storeParts(transaction, events.slice(half), at)
  return [...first, ...second]
}
