import { expect, test } from 'bun:test'
import { verifyRepoCar } from '@atproto/repo'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { Importers } from '../api/importers.ts'
import { dumpOf } from '../bulk/dump.ts'
import { keyOf } from '../bulk/foreign-posts.ts'
import type { ForeignRepo } from '../bulk/foreign-repo.ts'
import { failureOf } from '../kit/wait.ts'
import { textOf, xrpcResponse } from '../kit/xrpc.ts'
import { fileComplaints, readActorFile } from './actor-file.ts'
import { timesOf, withDice } from './dice.ts'

const kills = Math.ceil(timesOf('STRATOS_TEST_KILLS', 40) / 4)
const records = 1_500
const stubs = { params: { stubs: true } }

test.each([{ shards: '2' }, { shards: '0' }])(
  'a repo that is being filled when the service is killed is empty or whole: %j',
  async ({ shards }) => {
    await withDice(async (dice) => {
      const names = Array.from({ length: kills + 1 }, (_, index) => `person-${index}`)
      const people = Object.fromEntries(names.map((name) => [name, ['a']]))
      await using importers = await Importers.start({ people, env: { STRATOS_SHARDS: shards } })
      const [first = '', ...others] = names
      const repos = new Map(names.map((name) => [name, repoOf(importers, name)]))
      const import_ = (name: string) => {
        return importers.import(name, repos.get(name) ?? importers.repo(name), stubs)
      }
      // How long one takes, so that kills fall into all of it.
      const startMs = performance.now()
      expect(await import_(first)).toMatchObject({ status: 200, body: { imported: records } })
      const takesMs = performance.now() - startMs
      const found: string[] = [await stateOf(importers, first, repos.get(first))]
      for (const name of others) {
        const answer = import_(name).catch(() => undefined)
        await Bun.sleep(dice.below(takesMs * 1.1))
        await importers.stratos.kill()
        const told = (await answer)?.status
        if (dice.oneIn(4)) {
          const starting = failureOf(importers.stratos.run())
          await Bun.sleep(dice.below(400))
          await importers.stratos.kill()
          await starting
        }
        await importers.stratos.run()
        expect(importers.uploads()).toEqual([])
        const state = await stateOf(importers, name, repos.get(name))
        // What was said to be there is.
        if (told === 200) expect(state).toBe('whole')
        found.push(state)
        if (state === 'empty') expect(await import_(name)).toMatchObject({ status: 200 })
        expect(await stateOf(importers, name, repos.get(name))).toBe('whole')
      }
      // Kills before the first record or after the last show nothing.
      expect(new Set(found)).toEqual(new Set(['whole', 'empty']))
    })
  },
  Math.max(120_000, kills * 10_000),
)

test('an import for which there is no room on the disk changes nothing, and others go on', async () => {
  const marker = crypto.randomUUID()
  await using importers = await Importers.start({
    people: { alice: ['a'], bob: ['a'] },
    env: { STRATOS_JOURNAL_BYTES: '65536' },
    // No file may become larger than two mebibytes: the CAR is smaller, what is made of it is not.
    around: (command) => ['bash', '-c', 'trap "" XFSZ; ulimit -f 2048; exec "$@"', '-', ...command],
  })
  const large = importers.repoOf('alice')
  for (let index = 0; index < 2_500; index++) {
    large.put(`zone.stratos.feed.post/${keyOf(index)}`, importers.post(`${marker} ${index}`))
  }
  const folder = actorFolder(importers.stratos.dataFolder, importers.did('alice'))
  const before = dumpOf(join(folder, 'stratos.sqlite'))
  const answer = await importers.import('alice', large, stubs)
  expect(answer).toMatchObject({ status: 500, body: { error: 'InternalServerError' } })
  expect(dumpOf(join(folder, 'stratos.sqlite'))).toBe(before)
  expect(importers.uploads()).toEqual([])
  for (const name of readdirSync(folder)) {
    expect(readFileSync(join(folder, name)).includes(marker)).toBeFalse()
  }
  expect(importers.stratos.log).toContain('bulk.failed')
  expect(importers.stratos.log).not.toContain(marker)
  for (const name of ['alice', 'bob']) {
    const small = importers.repoOf(name, 'one', 'two')
    expect(await importers.import(name, small)).toMatchObject({ status: 200 })
  }
})

function repoOf(importers: Importers, name: string): ForeignRepo {
  const repo = importers.repo(name)
  for (let index = 0; index < records; index++) {
    repo.put(`zone.stratos.feed.post/${keyOf(index)}`, importers.post(`post ${index}`))
  }
  return repo
}

/** What an export and the rows say. @throws where it is neither of both, or not sound */
async function stateOf(
  importers: Importers,
  name: string,
  repo: ForeignRepo | undefined,
): Promise<'empty' | 'whole'> {
  const { stratos } = importers
  const did = importers.did(name)
  const call = { params: { did }, authorization: stratos.adminBasic }
  const response = await xrpcResponse(stratos.url, 'zone.stratos.sync.getRepo', call)
  const { body } = await stratos.call('zone.stratos.enrollment.status', call)
  const key = textOf(body, 'signingKey')
  const { creates, commit } = await verifyRepoCar(await response.bytes(), did, key)
  const file = readActorFile(join(actorFolder(stratos.dataFolder, did), 'stratos.sqlite'), did)
  const pds = { taken: () => undefined, isCleared: () => false }
  expect(fileComplaints(file, { answered: [], pds })).toEqual([])
  expect(file.head.rev).toBe(commit.rev)
  const cids = new Map(creates.map(({ rkey, cid }) => [rkey, cid.toString()]))
  if (cids.size > 0) expect(cids).toEqual(new Map(repo?.cids))
  return cids.size === 0 ? 'empty' : 'whole'
}
