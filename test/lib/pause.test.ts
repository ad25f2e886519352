import { expect, test } from 'bun:test'
import { unlessAborted } from '../../src/lib/pause.ts'
import { failureOf } from '../kit/wait.ts'

const reason = new Error('the reason')

test('what is waited for until a signal may fail later, of nobody’s concern', async () => {
  for (const signal of [AbortSignal.abort(reason), AbortSignal.timeout(1)]) {
    const { promise, reject } = Promise.withResolvers<never>()
    const failure = await failureOf(unlessAborted(promise, signal))
    expect(failure).toBe(signal.reason)
    // Nobody would handle it: the run of tests would fail.
    reject(new Error('later'))
    await Bun.sleep(1)
  }
})

test('a signal that was aborted comes before what is there already', async () => {
  const signal = AbortSignal.abort(reason)
  expect(await failureOf(unlessAborted(Promise.resolve('there'), signal))).toBe(reason)
  expect(await unlessAborted(Promise.resolve('there'), new AbortController().signal)).toBe('there')
})
