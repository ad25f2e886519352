import { expect, test } from 'bun:test'
import { stratosExporter } from '../../bench/kit/write-run.ts'
import { verifyRepos } from '../../bench/kit/verify.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { failureOf } from '../kit/wait.ts'

test('a record too few, one too many and another key are found out', async () => {
  await using stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
  const [alice, bob] = ['alice', 'bob'].map((name) => parseDid(stratos.person(name).did))
  if (alice === undefined || bob === undefined) throw new Error('two people were seeded')
  const collection = 'zone.stratos.feed.post'
  const boundary = { values: [{ value: stratos.boundary('a') }] }
  const record = { $type: collection, text: '', createdAt: new Date().toISOString(), boundary }
  for (let count = 0; count < 2; count++) {
    const input = { repo: alice, collection, record }
    const { status } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
    expect(status).toBe(200)
  }
  const exporter = stratosExporter(stratos)
  const found = await verifyRepos(exporter, new Map([[alice, 2]]))
  expect(found).toBe('verified 1 repos with all of 2 records, 1 of them by @atproto/repo')
  for (const count of [1, 3]) {
    const failure = await failureOf(verifyRepos(exporter, new Map([[alice, count]])))
    expect(String(failure)).toContain(`2 records, ${count} were acknowledged`)
  }
  const keyOfBob = { ...exporter, signingKeyOf: () => exporter.signingKeyOf(bob) }
  const failure = await failureOf(verifyRepos(keyOfBob, new Map([[alice, 2]])))
  expect(String(failure)).toContain('not by this key')
})
