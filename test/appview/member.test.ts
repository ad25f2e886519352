import { afterAll, beforeAll, expect, test } from 'bun:test'
import { MemberQuestions, questionsPerSecondMax } from '../../src/appview/member.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { createLog } from '../../src/lib/log.ts'
import { Identities } from '../../src/remote/identity.ts'
import { openFeeds } from '../../src/serve/appview.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { failureOf } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'
import { didOf, SmallIndex } from './small-index.ts'

const ann = didOf('ann')
let server: PostgresServer
let index: SmallIndex

beforeAll(async () => {
  server = await PostgresServer.start()
  index = await SmallIndex.open(server)
  await index.enroll(ann, ['a'])
})
afterAll(async () => {
  await index[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
})

/** Connections to the index, but for the one that asks. */
async function connections(): Promise<number> {
  const rows = await index.sql`select from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()`
  return rows.length
}

test('of names that anybody makes up so many a second are asked for, and no more', async () => {
  const clock = new Clock()
  await using questions = new MemberQuestions({ url: index.url, now: clock.now })
  const strangers = Array.from({ length: questionsPerSecondMax - 1 }, (_, at) => didOf(`x${at}`))
  const answers = await Promise.all(strangers.map((did) => questions.isMember(did)))
  expect(answers).not.toContain(true)
  expect(await questions.isMember(ann)).toBe(true)
  await index.sql`alter table stratos_enrollment rename to stratos_elsewhere`
  try {
    expect(await questions.isMember(ann)).toBe(false)
    clock.ms += 1_000
    expect(await failureOf(questions.isMember(ann))).toMatchObject({ error: 'IndexUnavailable' })
  } finally {
    await index.sql`alter table stratos_elsewhere rename to stratos_enrollment`
  }
  expect(await questions.isMember(ann)).toBe(true)
})

test('they are asked for by a connection that no feed needs', async () => {
  await using directory = new Directory()
  const before = await connections()
  const feeds = openFeeds({
    config: { indexPostgresUrl: index.url },
    identities: new Identities({ plcUrl: directory.url, fetch: loopbackFetch, now: Date.now }),
    key: ServiceKey.generate(),
    log: createLog('silent', () => undefined),
  })
  try {
    await Promise.all(Array.from({ length: 50 }, () => feeds.isMember(ann)))
    // One more looks after the index.
    expect((await connections()) - before).toBe(2)
    feeds.use(undefined)
    expect(await failureOf(feeds.isMember(ann))).toMatchObject({ error: 'IndexUnavailable' })
  } finally {
    await feeds.stop()
  }
})
