import { join } from 'node:path'
import { parseDid } from '../atproto/syntax.ts'
import { type Config, ConfigError } from '../config.ts'
import { assert } from '../lib/assert.ts'
import { type AtExit, checkPackages } from '../indexer/postgres-programs.ts'
import type { Log } from '../lib/log.ts'
import { type Running, serve } from '../serve.ts'
import { openFeeds } from './appview.ts'
import { IndexSide } from './index-side.ts'
import { followingParts } from './indexer.ts'
import type { Threads } from './shards.ts'

interface Around extends Threads {
  readonly log: Log
  readonly version: string
  readonly atExit: AtExit
}

/**
 * Service, indexer and AppView in one process, for a small community: the service follows itself as
 * any other service is followed, and answers feeds under its own DID. Without a PostgreSQL of the
 * operator's there is one of our own in the data folder.
 */
export async function serveAll(
  config: Config,
  around: Around,
): Promise<Running & { readonly failed: Promise<never> }> {
  const following = { ...followingParts(config, around.log), services: servicesOf(config) }
  const reader = parseDid(config.serviceDid)
  const { indexPostgresUrl: url } = config
  const { atExit } = around
  // Before anybody comes.
  if (url === '') checkPackages()
  let side: IndexSide | undefined
  const running = await serve(config, {
    ...around,
    openFeeds: (made) => {
      const feeds = openFeeds(made)
      const started = new IndexSide({
        database: url === '' ? { folder: join(config.dataDir, 'index'), atExit } : { url },
        ...following,
        ...made,
        reader,
        moved: (now) => feeds.use(now),
      })
      side = started
      return {
        ...feeds,
        get state() {
          return { ...feeds.state, indexing: started.state }
        },
      }
    },
  })
  assert(side !== undefined, 'a service that answers feeds opens them')
  const started = side
  // Its own stream is among what is followed: that is open by now.
  started.start()
  return {
    failed: started.failed,
    stop: async () => {
      await started.stop()
      await running.stop()
    },
  }
}

/**
 * The service of this process, by its own door, and all others that are named. It may be named with
 * them, as for an indexer beside it. @throws ConfigError where it is said to be elsewhere
 */
function servicesOf(config: Config): Config['indexServices'] {
  const own = { did: parseDid(config.serviceDid), origin: ownOrigin(config) }
  const named = config.indexServices.find(({ did }) => did === own.did)?.origin ?? own.origin
  if (named !== own.origin && named !== config.publicUrl) {
    throw new ConfigError([
      `STRATOS_INDEX_SERVICES names ${own.did} at ${named}, and that is the service of this process: ` +
        'leave it out, or name it without an origin',
    ])
  }
  return [own, ...config.indexServices.filter(({ did }) => did !== own.did)]
}

/** Where this process reaches itself, whatever lies between the public URL and it. */
function ownOrigin({ host, port }: Config): string {
  if (host === '0.0.0.0' || host === '') return `http://127.0.0.1:${port}`
  if (host === '::') return `http://[::1]:${port}`
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}
