import { availableParallelism } from 'node:os'
import type { LexiconDoc } from '@atproto/lexicon'
import type { Schemas } from '../atproto/lexicon.ts'
import { Bulk } from '../bulk/bulk.ts'
import type { Config } from '../config.ts'
import { descriptorLimit, handlesWithin } from '../lib/descriptors.ts'
import { folder } from '../lib/embed.macro.ts' with { type: 'macro' }
import type { Log } from '../lib/log.ts'
import type { CallActor } from '../service/calls.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { ShardBoot } from '../shard/messages.ts'
import { ShardPool } from '../shard/pool.ts'
import type { ToldCursors } from '../stream/told-cursors.ts'
import { recover } from '../store/recover.ts'

export interface Threads {
  readonly startWorker: () => Worker
  /** A shard ended by itself: the process must end. */
  readonly died: (name: string, error: unknown) => void
}

interface Made {
  readonly config: Config
  readonly told: ToldCursors
  readonly rules: WriteRules
  readonly docs: readonly LexiconDoc[]
  readonly schemas: Schemas
}

/** Whoever owns actors, and the thread of long jobs. */
export interface ActorThreads {
  readonly call: CallActor
  readonly bulk: Bulk
  readonly follow: ShardPool['follow']
  /** Finishes what runs and closes the databases. */
  close(): Promise<void>
}

export async function startActors(
  made: Made,
  around: Threads & { readonly log: Log },
): Promise<ActorThreads> {
  const pool = await startShards(made, around)
  const bulk = startBulk(made, around)
  return {
    bulk,
    follow: (pushed) => pool.follow(pushed),
    call: async (did, requestId, ask) => {
      // Whoever joins anew or gets other boundaries waits for no import.
      if (ask.kind === 'open' || ask.kind === 'queue') bulk.interrupt(did)
      if (ask.kind !== 'leave') return await pool.call(did, requestId, ask)
      // Before, so that nothing holds a departure up, and after, as the repo is closed only then.
      bulk.stop(did)
      const answer = await pool.call(did, requestId, ask)
      bulk.stop(did)
      return answer
    },
    close: async () => {
      await bulk.close()
      await pool.close()
    },
  }
}

async function startShards(
  made: Made,
  { log, startWorker, died }: Threads & { readonly log: Log },
): Promise<ShardPool> {
  const { config, rules, docs, schemas, told } = made
  const migrations = folder('migrations/actor/sqlite')
  await recover({ dataDir: config.dataDir, migrations }, log)
  // The main thread keeps a core busy by itself.
  const count = config.shards ?? Math.max(1, availableParallelism() - 1)
  const lanes = Math.max(1, count)
  const handles = actorHandles(config, log)
  const boots = Array.from({ length: lanes }, (_, index): ShardBoot => {
    return {
      role: 'shard',
      name: `shard-${index}`,
      dataDir: config.dataDir,
      synchronous: config.synchronous,
      journalBytes: config.journalBytes,
      handlesMax: Math.max(1, Math.floor(handles / lanes)),
      treeBytesMax: Math.floor(treeBytesMax / lanes),
      clockId: index,
      vouched: told.most,
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

function startBulk(
  { config, rules, docs }: Made,
  { log, ...threads }: Threads & { readonly log: Log },
): Bulk {
  const { dataDir, logLevel, shards } = config
  const base = { role: 'bulk', dataDir, logLevel, schemas: JSON.stringify(docs), rules } as const
  const boot = { ...base, treeBytesMax, pace, idleMs }
  return shards === 0 ? Bulk.inline(boot, log) : Bulk.inWorker(boot, threads)
}

/** A reader that pins a database's log makes it grow with each write. @see architecture.md, Threads */
const pace = {
  msMax: 60_000,
  windowBytesMin: 10 * 256 * 1024,
  windowMs: 10_000,
  lookEveryMs: 1_000,
}
/** The thread of the next job starts in some 100 ms. */
const idleMs = 30_000

/** The databases of actors share the process's descriptors with sockets. */
function actorHandles(config: Config, log: Log): number {
  const limit = descriptorLimit()
  const wanted = config.actorHandles
  const handles = handlesWithin(limit, { wanted, filesEach: 3, reserved: reservedDescriptors })
  if (handles < wanted) log.warn('actor-handles.reduced', { wanted, handles, limit })
  return handles
}

/** Decoded trees of all shards together, by estimate, and of all exports. */
const treeBytesMax = 64 * 1024 * 1024
/** Sockets, the service's own files, and some air. */
const reservedDescriptors = 400
