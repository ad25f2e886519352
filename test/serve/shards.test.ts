import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import { readConfig } from '../../src/config.ts'
import { createLog } from '../../src/lib/log.ts'
import { type ActorThreads, startActors } from '../../src/serve/shards.ts'
import type { ActorCall } from '../../src/service/calls.ts'
import { foreignPosts, pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { Gate } from '../kit/gate.ts'
import { failureOf } from '../kit/wait.ts'
import { a, post, postUri, replyTo, rules, schemas } from '../service/posts.ts'
import { ToldCursors } from '../../src/stream/told-cursors.ts'
import { newDid } from '../shard/pools.ts'
import { temporaryFolder } from '../store/temporary.ts'

const dataDir = join(temporaryFolder(), 'data')
let actors: ActorThreads

beforeAll(async () => {
  mkdirSync(dataDir)
  const config = readConfig({ STRATOS_DATA_DIR: dataDir, STRATOS_SHARDS: '0' })
  const around = {
    log: createLog('silent', () => undefined),
    startWorker: () => {
      throw new Error('there are no threads here')
    },
    died: () => undefined,
  }
  actors = await startActors(
    { config, told: new ToldCursors(dataDir), rules, docs: schemaDocs, schemas },
    around,
  )
})
afterAll(async () => {
  await actors.close()
})

const collection = parseNsid('zone.stratos.actor.enrollment')
const row = { collection, rkey: parseRkey('one'), record: '{}' }
const changed = { status: 503, error: 'Overloaded' }
const changes: Record<string, readonly [ask: ActorCall, refusal: object]> = {
  'a change of boundaries': [{ kind: 'queue', outbox: [row] }, changed],
  'another sign-in': [{ kind: 'open', outbox: [row] }, changed],
  'a departure': [{ kind: 'leave' }, { status: 404, error: 'RepoNotFound' }],
}

test.each(Object.entries(changes))(
  '%s ends an import instead of waiting for it',
  async (...row) => {
    const [, [ask, refusal]] = row
    const { did, gate, importing } = await held()
    const done = actors.call(did, 'test', ask)
    gate.open()
    expect(await importing).toMatchObject(refusal)
    await done
  },
)

test('a row of the outbox waits for an import, and does not end it', async () => {
  const { did, gate, importing } = await held()
  const budget = { points: 1, atMs: 1 }
  const key = { collection, rkey: parseRkey('one'), position: 1 }
  const outcome = { kind: 'settled', pdsCid: null } as const
  const report = actors.call(did, 'test', { kind: 'report', row: key, outcome, budget })
  gate.open()
  expect(await importing).toBeUndefined()
  await report
})

/** An import that waits before its end, and what it was refused with, if it was. */
async function held() {
  const did = newDid()
  await actors.call(did, 'test', { kind: 'key' })
  await actors.call(did, 'test', { kind: 'open', outbox: [] })
  const repo = new ForeignRepo(did, foreignPosts(3))
  repo.put(pathOf('reply'), post({ reply: replyTo(postUri('theirs')) }))
  const path = join(dataDir, 'body')
  writeFileSync(path, repo.car())
  const gate = new Gate()
  const facts = { boundaries: [a], boundaryMap: [], takendown: [], stubs: [] }
  const end = actors.bulk.import(
    { did, path, ...facts, bytesMax: 1_000_000 },
    {
      lend: () => actors.call(did, 'test', { kind: 'lend' }),
      giveBack: async () => void (await actors.call(did, 'test', { kind: 'return' })),
      targets: async () => {
        await gate.pass()
        return {}
      },
    },
  )
  const importing = failureOf(end)
  await gate.reached
  return { did, gate, importing }
}
