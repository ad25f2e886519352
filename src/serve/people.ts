import type { ServiceKey } from '../atproto/keys.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import type { Did, Nsid } from '../atproto/syntax.ts'
import type { Bulk } from '../bulk/bulk.ts'
import type { Config } from '../config.ts'
import type { Log } from '../lib/log.ts'
import { Lru } from '../lib/lru.ts'
import { missingScopes } from '../remote/oauth-client.ts'
import type { OAuth } from '../remote/oauth.ts'
import { Pds } from '../remote/pds.ts'
import type { BlobKeeper } from '../service/blob-keeper.ts'
import { BlobSweep } from '../service/blob-sweep.ts'
import type { CallActor } from '../service/calls.ts'
import { Departures } from '../service/departure.ts'
import type { Eligibility } from '../service/eligibility.ts'
import { Enrollments } from '../service/enrollment.ts'
import { KeepAlive } from '../service/keep-alive.ts'
import { Troubles } from '../service/moves.ts'
import type { OauthKeys } from '../service/oauth-keys.ts'
import { Outbox } from '../service/outbox.ts'
import { Retention } from '../service/retention.ts'
import type { SessionSecrets } from '../service/session-secrets.ts'
import { StubSwitch } from '../service/stub-switch.ts'
import { TakedownNews } from '../service/takedown-news.ts'
import type { WriteRules } from '../service/write-op.ts'
import type { ShardPool } from '../shard/pool.ts'
import type { BlobStorage } from '../store/blob-storage.ts'
import type { Outside } from './outside.ts'
import type { ToldCursors } from '../stream/told-cursors.ts'
import type { Stores } from './stores.ts'

/** What is there before anybody can join. */
export interface Base extends Stores, Outside {
  readonly config: Config
  readonly rules: WriteRules
  /** Private collections whose names are known. */
  readonly collections: readonly Nsid[]
  readonly schemas: Schemas
  readonly key: ServiceKey
  /** Of a confidential client. */
  readonly keys: OauthKeys | undefined
  /** Of sessions. */
  readonly secrets: SessionSecrets
  readonly eligibility: Eligibility
  /** By which DPoP nonces are made and known again. */
  readonly nonceSecret: Uint8Array
  /** By which links to blobs are signed. */
  readonly blobSecret: Uint8Array
  readonly call: CallActor
  readonly bulk: Bulk
  readonly told: ToldCursors
  /** The bytes of blobs, and whoever keeps them in order. */
  readonly storage: BlobStorage
  readonly blobs: BlobKeeper
  /** Has what the shards store told, to one listener or to none. */
  readonly follow: ShardPool['follow']
}

export type People = ReturnType<typeof membership>

/** Who is in, how they join and leave, and what their PDSes are told of it. */
export function membership(base: Base, log: Log) {
  const { config, store, departures, call, oauth, identities } = base
  const pds = (did: Did) => new Pds({ did, use: (task) => oauth.use(did, task), now: Date.now })
  const ending: OAuth['ending'] = (did, task) => oauth.ending(did, task)
  const departing = {
    store: departures,
    departures: new Departures({ store: departures, ending, log }),
  }
  const service = `${config.serviceDid}#${config.fragment}`
  const pointsPerHour = config.outboxPoints
  const troubles = new Troubles({ identities, now: Date.now, log })
  const troubled = (did: Did) => troubles.troubled(did)
  const outbox = new Outbox({ store, departing, pointsPerHour, call, pds, service, troubled, log })
  const enrollments = new Enrollments(config, { ...base, outbox, log })
  // Most people granted the same.
  const byScope = new Lru<string, readonly Nsid[]>(scopesMax)
  const stubCollections = (scope: string) => {
    const known = byScope.get(scope) ?? stubbed(base, scope)
    byScope.set(scope, known)
    return known
  }
  const mode = config.stubs
  const stubs = new StubSwitch({ mode, stubCollections, store, call, outbox, log })
  const refresh = (did: Did) => oauth.refresh(did)
  const keepAlive = new KeepAlive({ store, refresh, troubled, now: Date.now, log })
  const news = new TakedownNews({ ...base, enrollments, log })
  const { retentionDays } = config
  const retention = new Retention({ store, call, retentionDays, now: Date.now, log })
  const blobSweep = new BlobSweep({ ...base, enrollments, now: Date.now, log })
  return {
    departing,
    news,
    retention,
    blobSweep,
    outbox,
    enrollments,
    stubCollections,
    stubs,
    keepAlive,
  }
}

const scopesMax = 100

/** Collections in which the PDS takes stubs from us, by the scope that the person granted. */
function stubbed({ config, collections }: Base, scope: string): readonly Nsid[] {
  if (config.stubs === 'off') return []
  return collections.filter((nsid) => missingScopes(`repo:${nsid}`, scope).length === 0)
}
