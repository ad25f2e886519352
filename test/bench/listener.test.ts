import { afterAll, expect, test } from 'bun:test'
import { repoStream } from '../../bench/kit/stream-run.ts'
import { Listener } from '../../bench/kit/listener.ts'
import { commitFrame, errorFrame } from '../../src/atproto/stream-frame.ts'
import { parseDid, parseTid } from '../../src/atproto/syntax.ts'

const did = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')

/** Sends what the test at hand says, and leaves it open. */
let frames: readonly Uint8Array[] = []
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: (request, self) =>
    self.upgrade(request) ? undefined : new Response('no', { status: 400 }),
  websocket: {
    // All of it is sent at once: what a reader is late with waits here, and is not dropped.
    backpressureLimit: 64 * 1024 * 1024,
    open: (socket) => {
      socket.cork(() => {
        for (const frame of frames) socket.sendBinary(frame)
      })
    },
    message: () => undefined,
  },
})
afterAll(async () => await server.stop(true))

for (const reading of ['count', 'decode'] as const) {
  test(`readers that ${reading} refuse fewer commits, more, and the end of a stream`, async () => {
    frames = [commit(1), commit(2)]
    expect(await refusal(reading, 3)).toContain('not all came within 2 s')
    expect((await heard(reading, 2)).streams[0]?.bytes).toBe(commit(1).length * 2)
    frames = [commit(1), commit(2), commit(3)]
    expect(await refusal(reading, 2)).toContain('more commits came than there were')
    frames = [commit(1), errorFrame('ConsumerTooSlow', 'too slow')]
    expect(await refusal(reading, 2)).toContain('ConsumerTooSlow')
  })
}

test('commits that come again, or late, are refused', async () => {
  frames = [commit(1), commit(1)]
  expect(await refusal('decode', 2)).toContain('out of its order')
  frames = [commit(2), commit(1)]
  expect(await refusal('decode', 2)).toContain('out of its order')
})

test('commits that are longer than what comes at once are whole', async () => {
  frames = Array.from({ length: 500 }, (_, index) => commit(index + 1, index * 200))
  const { streams } = await heard('decode', 500)
  expect(streams[0]?.cursors).toEqual({ [did]: 500 })
  expect(streams[0]?.bytes).toBe(frames.reduce((sum, { length }) => sum + length, 0))
})

function commit(seq: number, collectionBytes = 10): Uint8Array {
  const time = '2025-01-01T00:00:00.000Z'
  const path = `${'a'.repeat(collectionBytes)}/self`
  const ops = [{ action: 'delete' as const, path }]
  return commitFrame({ seq, did, time, rev: parseTid('3lqqqqqqqqq2a'), ops })
}

async function heard(reading: 'count' | 'decode', commits: number, secondsMax = 30) {
  const stream = repoStream(did, { sockets: 1, commits, reading })
  const plan = { port: server.port ?? 0, streams: [stream], secondsMax }
  await using listener = await Listener.start(plan)
  return await listener.heard()
}

async function refusal(reading: 'count' | 'decode', commits: number): Promise<string> {
  // Some of it is told at the end.
  return await heard(reading, commits, 2).then(
    () => 'nothing was refused',
    (error: unknown) => String(error),
  )
}
