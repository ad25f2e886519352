import { describe, expect, test } from 'bun:test'
import { Exports } from '../../src/api/exports.ts'
import { failureOf } from '../kit/wait.ts'

const overloaded = { status: 503, error: 'Overloaded' }

/** A stream of so many pieces of one byte. */
const pieces = (count: number) => async () => {
  let left = count
  return new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (left-- > 0) controller.enqueue(new Uint8Array([7]))
      else controller.close()
    },
  })
}

const broken = (error: Error) => async () =>
  new ReadableStream<Uint8Array>({ pull: (controller) => controller.error(error) })

test('a caller reads three repos at once, and no fourth', async () => {
  const exports = new Exports()
  for (let index = 0; index < 3; index++) await exports.stream('alice', pieces(1))
  expect(await failureOf(exports.stream('alice', pieces(1)))).toMatchObject(overloaded)
  expect(await failureOf(exports.stream('bob', pieces(1)))).toBeUndefined()
})

test('all callers together read twelve', async () => {
  const exports = new Exports()
  for (let index = 0; index < 12; index++) await exports.stream(`caller ${index}`, pieces(1))
  expect(await failureOf(exports.stream('one more', pieces(1)))).toMatchObject(overloaded)
})

test('exports that are still being opened count, too', async () => {
  const exports = new Exports()
  const opening = Promise.withResolvers<ReadableStream<Uint8Array>>()
  const begun = [1, 2, 3].map(() => exports.stream('alice', () => opening.promise))
  expect(await failureOf(exports.stream('alice', pieces(1)))).toMatchObject(overloaded)
  opening.reject(new Error('the owner refused'))
  for (const one of begun) {
    expect(await failureOf(one)).toHaveProperty('message', 'the owner refused')
  }
  expect(await failureOf(exports.stream('alice', pieces(1)))).toBeUndefined()
})

describe('an export makes room, and once only,', () => {
  type Stream = ReadableStream<Uint8Array>
  const ends: Readonly<Record<string, (stream: Stream) => Promise<unknown>>> = {
    'when it was sent': async (stream) =>
      expect(await new Response(stream).bytes()).toEqual(new Uint8Array([7, 7])),
    'when it is cancelled': async (stream) => await stream.cancel(),
    'when it is cancelled after its end': async (stream) => {
      const reader = stream.getReader()
      while (!(await reader.read()).done);
      await reader.cancel()
    },
  }
  for (const [how, end] of Object.entries(ends)) {
    test(how, async () => {
      const exports = new Exports()
      await exports.stream('alice', pieces(2))
      await exports.stream('alice', pieces(2))
      await end(await exports.stream('alice', pieces(2)))
      await exports.stream('alice', pieces(2))
      expect(await failureOf(exports.stream('alice', pieces(2)))).toMatchObject(overloaded)
    })
  }
})

test('what breaks off says so to whoever reads it, and makes room', async () => {
  const exports = new Exports()
  for (let index = 0; index < 5; index++) {
    const stream = await exports.stream('alice', broken(new Error('cut')))
    expect(await failureOf(stream.getReader().read())).toHaveProperty('message', 'cut')
  }
})
