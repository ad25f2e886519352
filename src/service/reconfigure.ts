import type { Log } from '../lib/log.ts'
import type { ServiceStore } from '../store/service.ts'

/** What of the configuration people's public enrollment records repeat. */
interface Published {
  readonly publicUrl: string
  /** did:key of the service, which attests them. */
  readonly serviceKey: string
  readonly publishBoundaries: boolean
  /** Qualified. */
  readonly boundaries: readonly string[]
}

/**
 * Looks at what became of the configuration since the last start: names the boundaries that are
 * gone though people are in them, and makes the public records due that now say something else.
 */
export async function announceChanges(
  { publicUrl, serviceKey, publishBoundaries, boundaries }: Published,
  { store, log }: { readonly store: ServiceStore; readonly log: Log },
): Promise<void> {
  await warnOfMissing(boundaries, { store, log })
  const now: Published = { publicUrl, serviceKey, publishBoundaries, boundaries }
  const remember = { name, value: JSON.stringify(now) }
  const text = await store.remembered(name)
  if (text === undefined) return await store.remember(remember)
  const before: Published = JSON.parse(text)
  const changed = differenceOf(before, now)
  if (changed.length === 0) return
  log.info('enrollment.records.due', { changed })
  await store.recordsChange(changed, remember)
}

const name = 'published'

function differenceOf(before: Published, now: Published): readonly string[] | 'all' {
  const same =
    before.publicUrl === now.publicUrl &&
    before.serviceKey === now.serviceKey &&
    before.publishBoundaries === now.publishBoundaries
  if (!same) return 'all'
  const gone = before.boundaries.filter((one) => !now.boundaries.includes(one))
  const come = now.boundaries.filter((one) => !before.boundaries.includes(one))
  return [...gone, ...come]
}

async function warnOfMissing(
  boundaries: readonly string[],
  { store, log }: { readonly store: ServiceStore; readonly log: Log },
): Promise<void> {
  for (const { boundary, members } of await store.boundaryCounts()) {
    if (boundaries.includes(boundary)) continue
    log.warn('boundary.missing', {
      boundary,
      members,
      advice:
        'people are in this boundary and the configuration lacks it: what was written to it alone ' +
        'is hidden from all but its authors, and is there again once the name is configured',
    })
  }
}
