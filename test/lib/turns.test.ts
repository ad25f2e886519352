import { expect, test } from 'bun:test'
import { Turns } from '../../src/lib/turns.ts'
import { failureOf } from '../kit/wait.ts'

test('tasks of one key run one at a time, in the order of arrival', async () => {
  const turns = new Turns<string>()
  const events: string[] = []
  const gates = [0, 1, 2].map(() => Promise.withResolvers<void>())
  const runs = gates.map((gate, index) =>
    turns.run('a', async () => {
      events.push(`start ${index}`)
      await gate.promise
      events.push(`end ${index}`)
      return index
    }),
  )
  // The last gate opens first; it must not help the last task.
  for (const gate of gates.toReversed()) {
    gate.resolve()
    await Bun.sleep(0)
  }
  expect(await Promise.all(runs)).toEqual([0, 1, 2])
  expect(events).toEqual(['start 0', 'end 0', 'start 1', 'end 1', 'start 2', 'end 2'])
})

test('other keys are not held up', async () => {
  const turns = new Turns<string>()
  const gate = Promise.withResolvers<void>()
  const slow = turns.run('a', () => gate.promise)
  expect(await turns.run('b', async () => 'done')).toBe('done')
  gate.resolve()
  await slow
})

test('a task that fails tells its own caller and nobody else', async () => {
  const turns = new Turns<string>()
  const failing = turns.run('a', async () => {
    throw new Error('mine')
  })
  const next = turns.run('a', async () => 'fine')
  expect(await failureOf(failing)).toEqual(new Error('mine'))
  expect(await next).toBe('fine')
  expect(await turns.run('a', async () => 'later')).toBe('later')
})
