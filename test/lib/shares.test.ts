import { expect, test } from 'bun:test'
import { Shares } from '../../src/lib/shares.ts'
import { failureOf } from '../kit/wait.ts'

function shares(): Shares<string> {
  const refusal = (whose: string) => new Error(whose)
  return new Shares({ ofOneMax: 2, togetherMax: 3, refusal })
}

test('one more than an owner may have, or all together, never begins', async () => {
  const all = shares()
  const end = Promise.withResolvers<void>()
  const begun: string[] = []
  const run = (owner: string | undefined) =>
    all.run(owner, async () => {
      begun.push(owner ?? 'nobody')
      await end.promise
    })
  const running = [run('ann'), run('ann')]
  expect(await failureOf(run('ann'))).toEqual(new Error('own'))
  running.push(run(undefined))
  expect(await failureOf(run('ben'))).toEqual(new Error('all'))
  expect(await failureOf(run(undefined))).toEqual(new Error('all'))
  expect(begun).toEqual(['ann', 'ann', 'nobody'])
  end.resolve()
  await Promise.all(running)
  await Promise.all([run('ann'), run('ann'), run('ben')])
})

test('what is nobody’s is bounded by all alone', async () => {
  const all = shares()
  const end = Promise.withResolvers<void>()
  const running = [1, 2, 3].map(() => all.run(undefined, () => end.promise))
  end.resolve()
  await Promise.all(running)
})

test('a task that fails counts no more', async () => {
  const all = shares()
  const fail = async () => await Promise.reject(new Error('failed'))
  for (const _ of [1, 2, 3, 4]) {
    expect(await failureOf(all.run('ann', fail))).toEqual(new Error('failed'))
  }
})
