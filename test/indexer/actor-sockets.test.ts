import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { ActorSockets } from '../../src/indexer/actor-sockets.ts'
import { StreamSocket } from '../../src/indexer/stream-socket.ts'
import { openSocket } from '../../src/remote/socket.ts'
import { eventually } from '../kit/wait.ts'
import { heartbeat, ScriptedService } from './scripted-service.ts'

const alice = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')

let scripted: ScriptedService
let sockets: ActorSockets

beforeEach(() => {
  scripted = new ScriptedService()
  sockets = new ActorSockets({ open, take: async () => undefined, againMs })
  sockets.add(alice)
})
afterEach(async () => {
  await sockets[Symbol.asyncDispose]()
  await scripted[Symbol.asyncDispose]()
})

/** After ten ends in a row it would be a second, after fifteen half a minute. */
const againMs = 1

describe('a stream that ends is opened again', () => {
  test('later each time where it does nothing but end, whatever it says', async () => {
    const startedMs = performance.now()
    for (let times = 0; times < 8; times++) {
      const peer = await scripted.peer(() => true)
      peer.send(heartbeat())
      peer.close()
      await ended(peer)
    }
    await scripted.peer(() => true)
    // At least half of 1, 2, 4 and so on up to 128.
    expect(performance.now() - startedMs).toBeGreaterThan(127)
  })

  test('soon where it has worked before, however often that was', async () => {
    for (let times = 0; times < 16; times++) {
      const peer = await scripted.peer(() => true)
      await eventually('answer', () => (sockets.prove(1) === 1 ? true : undefined), { everyMs: 1 })
      peer.close()
      await ended(peer)
    }
    await scripted.peer(() => true)
  }, 10_000)
})

async function ended(peer: { readonly isOpen: boolean }): Promise<void> {
  await eventually('end', () => (peer.isOpen ? undefined : true), { everyMs: 1 })
}

async function open(did: Did): Promise<StreamSocket> {
  const url = new URL('/', await scripted.followed.url())
  url.protocol = 'ws:'
  url.searchParams.set('did', did)
  const { signal } = new AbortController()
  return new StreamSocket(await openSocket(url, { allowPrivateNetwork: true, signal }), {})
}
