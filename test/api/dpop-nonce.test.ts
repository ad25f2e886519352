import { expect, test } from 'bun:test'

import { DpopNonces } from '../../src/api/dpop-nonce.ts'
import { Clock } from '../remote/directory.ts'

const secret = Buffer.alloc(32, 7)
const windowMs = 90_000

test('a nonce counts in its window and the next, and no longer', () => {
  const clock = startOfWindow()
  const nonces = new DpopNonces({ secret, now: clock.now })
  const first = nonces.current
  const end = clock.ms + 2 * windowMs
  clock.ms += windowMs - 1
  expect(nonces.current).toBe(first)
  clock.ms += 1
  expect(nonces.current).not.toBe(first)
  clock.ms = end - 1
  expect(nonces.expiresAtMs(first)).toBe(end)
  clock.ms = end
  expect(nonces.expiresAtMs(first)).toBeUndefined()
})

test('instances with the same secret take each other’s, and none of another secret', () => {
  const clock = startOfWindow()
  const [one, two] = [1, 2].map(() => new DpopNonces({ secret, now: clock.now }))
  clock.ms += windowMs
  expect(one?.current).toBe(two?.current ?? '')
  const other = new DpopNonces({ secret: Buffer.alloc(32, 8), now: clock.now })
  expect(one?.expiresAtMs(other.current)).toBeUndefined()
})

test('one from before the start does not count, and a new one is another', () => {
  const clock = startOfWindow()
  const before = new DpopNonces({ secret, now: clock.now }).current
  clock.ms += 1
  const after = new DpopNonces({ secret, now: clock.now })
  expect(after.expiresAtMs(before)).toBeUndefined()
  expect(after.current).not.toBe(before)
  expect(after.expiresAtMs(after.current)).toBeNumber()
})

test('one of a time to come does not count, however well it is made', () => {
  const clock = startOfWindow()
  const nonces = new DpopNonces({ secret, now: clock.now })
  clock.ms += windowMs
  const next = nonces.current
  clock.ms -= 1
  expect(nonces.expiresAtMs(next)).toBeUndefined()
})

test('with a clock that was set back the service goes on', () => {
  const clock = startOfWindow()
  const nonces = new DpopNonces({ secret, now: clock.now })
  clock.ms -= 10 * windowMs
  expect(nonces.expiresAtMs(nonces.current)).toBeNumber()
})

test('texts that are no nonce do not count', () => {
  const clock = startOfWindow()
  const nonces = new DpopNonces({ secret, now: clock.now })
  const [time = '', code = ''] = nonces.current.split('.')
  const { current } = nonces
  clock.ms += windowMs
  expect(nonces.expiresAtMs(current)).toBeNumber()
  const texts = [
    '',
    '.',
    time,
    `${time}.`,
    `.${code}`,
    `0${time}.${code}`,
    `${time.toUpperCase()}.${code}`,
    `${time}.${code}.`,
    `${time}.${code}=`,
    `${time}.${code.slice(1)}`,
    `${time} .${code}`,
    `-1.${code}`,
    `${time}.${'A'.repeat(22)}`,
    `${time}.${'ä'.repeat(22)}`,
    'z'.repeat(10_000),
  ]
  for (const text of texts) expect([text, nonces.expiresAtMs(text)]).toEqual([text, undefined])
})

function startOfWindow(): Clock {
  const clock = new Clock()
  clock.ms -= clock.ms % windowMs
  return clock
}
