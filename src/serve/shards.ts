import { availableParallelism } from 'node:os'
import type { LexiconDoc } from '@atproto/lexicon'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Config } from '../config.ts'
import { descriptorLimit, handlesWithin } from '../lib/descriptors.ts'
import { folder } from '../lib/embed.macro.ts' with { type: 'macro' }
import type { Log } from '../lib/log.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { ShardBoot } from '../shard/messages.ts'
import { ShardPool } from '../shard/pool.ts'
import { recover } from '../store/recover.ts'

export interface Threads {
  readonly startWorker: () => Worker
  /** A shard ended by itself: the process must end. */
  readonly died: (name: string, error: unknown) => void
}

export async function startShards(
  made: { config: Config; rules: WriteRules; docs: readonly LexiconDoc[]; schemas: Schemas },
  { log, startWorker, died }: Threads & { readonly log: Log },
): Promise<ShardPool> {
  const { config, rules, docs, schemas } = made
  const migrations = folder('migrations/actor/sqlite')
  await recover({ dataDir: config.dataDir, migrations }, log)
  // The main thread keeps a core busy by itself.
  const count = config.shards ?? Math.max(1, availableParallelism() - 1)
  const lanes = Math.max(1, count)
  const handles = actorHandles(config, log)
  const boots = Array.from({ length: lanes }, (_, index): ShardBoot => {
    return {
      name: `shard-${index}`,
      dataDir: config.dataDir,
      synchronous: config.synchronous,
      journalBytes: config.journalBytes,
      handlesMax: Math.max(1, Math.floor(handles / lanes)),
      treeBytesMax: Math.floor(treeBytesMax / lanes),
      clockId: index,
      logLevel: config.logLevel,
      migrations,
      schemas: JSON.stringify(docs),
      rules,
    }
  })
  const [first] = boots
  if (count === 0 && first !== undefined) return ShardPool.inline(first, { schemas, log })
  return await ShardPool.inWorkers(boots, { start: startWorker, died })
}

/** The databases of actors share the process's descriptors with sockets. */
function actorHandles(config: Config, log: Log): number {
  const limit = descriptorLimit()
  const wanted = config.actorHandles
  const handles = handlesWithin(limit, { wanted, filesEach: 3, reserved: reservedDescriptors })
  if (handles < wanted) log.warn('actor-handles.reduced', { wanted, handles, limit })
  return handles
}

/** Decoded trees of all shards together, by estimate. */
const treeBytesMax = 64 * 1024 * 1024
/** Sockets, the service's own files, and some air. */
const reservedDescriptors = 400
