import { expect, setDefaultTimeout, test } from 'bun:test'
import { AccessLedger } from './access-ledger.ts'
import { timesOf, withDice } from './dice.ts'
import { FeedChaos } from './feed-chaos.ts'

setDefaultTimeout(300_000)

const rounds = timesOf('STRATOS_TEST_INDEX_KILLS', 6)
const graceMs = 5_000

test('the index equals the repos, and showed nothing late, after service, indexer and PostgreSQL were killed', async () => {
  await withDice(async (dice) => {
    await using chaos = await FeedChaos.start(dice)
    const load = chaos.load()
    for (let round = 0; round < rounds; round++) {
      await Bun.sleep(dice.between(500, 1_500))
      const victim = (['service', 'indexer', 'postgres'] as const)[round % 3] ?? 'service'
      // Once for longer than anybody may be shown what is old.
      await chaos.killed(victim, round === 1 ? graceMs + 2_500 : dice.between(100, 1_000))
    }
    await Bun.sleep(2_000)
    await load.stop()
    const late = chaos.late(graceMs)
    expect(late).toEqual([])
    const { shown, changes, answers } = chaos.counts
    expect(shown).toBeGreaterThan(100)
    expect(answers.get('IndexStale')).toBeGreaterThan(0)
    expect(changes).toBeGreaterThan(50)
    await chaos.same()
  })
})

test('what is shown after it may have been seen is found', async () => {
  const ledger = new AccessLedger()
  ledger.viewer('bob', ['a'])
  const before = Date.now()
  await ledger.change({ post: 'p' }, ['a'], async () => 'done')
  const during = { from: before, to: Date.now() }
  expect(ledger.mayHaveSeen('p', 'bob', during)).toBe(true)
  await ledger.change({ post: 'p' }, ['b'], async () => 'refused')
  await ledger.change({ post: 'p' }, ['b'], async () => 'unanswered')
  await Bun.sleep(2)
  expect(ledger.mayHaveSeen('p', 'bob', { from: Date.now(), to: Date.now() })).toBe(true)
  await ledger.change({ post: 'p' }, ['b'], async () => 'done')
  await Bun.sleep(2)
  expect(ledger.mayHaveSeen('p', 'bob', { from: Date.now(), to: Date.now() })).toBe(false)
  expect(ledger.mayHaveSeen('p', 'bob', during)).toBe(true)
  await ledger.change({ viewer: 'bob' }, ['b'], async () => 'done')
  expect(ledger.mayHaveSeen('p', 'bob', { from: Date.now(), to: Date.now() })).toBe(true)
  expect(ledger.mayHaveSeen('p', 'carol', during)).toBe(false)
})
