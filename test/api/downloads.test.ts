import { describe, expect, test } from 'bun:test'
import { connect } from 'node:net'
import { Downloads } from '../../src/api/downloads.ts'
import { eventually, failureOf } from '../kit/wait.ts'

const limits = { ofCallerMax: 3, togetherMax: 12, what: 'whole repos' }
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
  const downloads = new Downloads(limits)
  for (let index = 0; index < 3; index++) await downloads.stream('alice', pieces(1))
  expect(await failureOf(downloads.stream('alice', pieces(1)))).toMatchObject(overloaded)
  expect(await failureOf(downloads.stream('bob', pieces(1)))).toBeUndefined()
})

test('all callers together read twelve', async () => {
  const downloads = new Downloads(limits)
  for (let index = 0; index < 12; index++) await downloads.stream(`caller ${index}`, pieces(1))
  expect(await failureOf(downloads.stream('one more', pieces(1)))).toMatchObject(overloaded)
})

test('downloads that are still being opened count, too', async () => {
  const downloads = new Downloads(limits)
  const opening = Promise.withResolvers<ReadableStream<Uint8Array>>()
  const begun = [1, 2, 3].map(() => downloads.stream('alice', () => opening.promise))
  expect(await failureOf(downloads.stream('alice', pieces(1)))).toMatchObject(overloaded)
  opening.reject(new Error('the owner refused'))
  for (const one of begun) {
    expect(await failureOf(one)).toHaveProperty('message', 'the owner refused')
  }
  expect(await failureOf(downloads.stream('alice', pieces(1)))).toBeUndefined()
})

describe('a download makes room, and once only,', () => {
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
      const downloads = new Downloads(limits)
      await downloads.stream('alice', pieces(2))
      await downloads.stream('alice', pieces(2))
      await end(await downloads.stream('alice', pieces(2)))
      await downloads.stream('alice', pieces(2))
      expect(await failureOf(downloads.stream('alice', pieces(2)))).toMatchObject(overloaded)
    })
  }
})

test('what breaks off says so to whoever reads it, and makes room', async () => {
  const downloads = new Downloads(limits)
  for (let index = 0; index < 5; index++) {
    const stream = await downloads.stream('alice', broken(new Error('cut')))
    expect(await failureOf(stream.getReader().read())).toHaveProperty('message', 'cut')
  }
})

describe('what is not taken in time', () => {
  test('breaks off, is given up where it comes from, and makes room', async () => {
    const downloads = new Downloads({ ...limits, ofCallerMax: 1 })
    const cancelled = Promise.withResolvers<void>()
    const silent = async () => new ReadableStream<Uint8Array>({ cancel: () => cancelled.resolve() })
    const stream = await downloads.stream('alice', silent, 20)
    expect(await failureOf(stream.getReader().read())).toHaveProperty(
      'message',
      'not all of it was taken within 20 ms',
    )
    await cancelled.promise
    const next = await downloads.stream('alice', pieces(1))
    expect(await failureOf(downloads.stream('alice', pieces(1)))).toMatchObject(overloaded)
    await next.cancel()
  })

  test('breaks off while it is sent, too', async () => {
    const downloads = new Downloads({ ...limits, ofCallerMax: 1 })
    const endless = async () =>
      new ReadableStream<Uint8Array>({
        pull: async (controller) => {
          await Bun.sleep(1)
          controller.enqueue(new Uint8Array(1000))
        },
      })
    using server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: async () => new Response(await downloads.stream('alice', endless, 50)),
    })
    const response = await fetch(server.url)
    expect(await failureOf(response.bytes())).toBeInstanceOf(Error)
    expect(await failureOf(downloads.stream('alice', pieces(1)))).toBeUndefined()
  })

  test.each(['cancelled', 'read'])('has no time to keep when it was %s', async (how) => {
    const downloads = new Downloads(limits)
    const stream = await downloads.stream('alice', pieces(1), 2 ** 31 - 1)
    if (how === 'cancelled') await stream.cancel()
    else expect(await new Response(stream).bytes()).toEqual(new Uint8Array([7]))
  })
})

test('whoever takes nothing of an endless one is given up, has held little, and makes room', async () => {
  const pieceBytes = 256 * 1024
  const downloads = new Downloads({ ...limits, ofCallerMax: 1 })
  let pieces = 0
  const endless = async () =>
    new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        pieces += 1
        controller.enqueue(new Uint8Array(pieceBytes))
      },
    })
  using server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    idleTimeout: 1,
    fetch: async () => new Response(await downloads.stream('alice', endless)),
  })
  const socket = connect({ port: server.port ?? 0, host: '127.0.0.1' })
  try {
    socket.pause()
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await eventually('first piece', () => (pieces > 0 ? true : undefined))
    expect(await failureOf(downloads.stream('alice', endless))).toMatchObject(overloaded)
    const stream = await eventually('room', () =>
      downloads.stream('alice', endless).catch(() => undefined),
    )
    await stream.cancel()
    // What the network between the two holds, and no more.
    expect(pieces * pieceBytes).toBeLessThan(64 * 1024 * 1024)
  } finally {
    socket.destroy()
  }
})
