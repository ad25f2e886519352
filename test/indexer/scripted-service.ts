import { commitFrame, messageFrame } from '../../src/atproto/stream-frame.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import type { BackfillPage } from '../../src/indexer/backfill.ts'
import type { IndexedOp } from '../../src/indexer/event.ts'
import type { FollowedService } from '../../src/indexer/follower.ts'
import { RepoNotFound } from '../../src/indexer/service-calls.ts'
import { service } from '../kit/index-event.ts'
import { eventually } from '../kit/wait.ts'

interface Peer {
  readonly params: URLSearchParams
  readonly said: string[]
  isOpen: boolean
  send(frame: Uint8Array): void
  close(): void
}

/** Somebody else's service, which says what a test lets it. */
export class ScriptedService implements AsyncDisposable {
  readonly peers: Peer[] = []
  /** Whether it has a stream of everybody. */
  hasCommits = true
  /** Of repos that can be had. */
  readonly repos = new Map<string, () => AsyncIterable<BackfillPage>>()
  readonly #server: Bun.Server<URLSearchParams>

  constructor() {
    const peerOf = new Map<unknown, Peer>()
    this.#server = Bun.serve<URLSearchParams>({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request, server) => {
        const { searchParams } = new URL(request.url)
        if (searchParams.has('commits') && !this.hasCommits) {
          return Response.json({ error: 'InvalidRequest', message: 'commits' }, { status: 400 })
        }
        if (server.upgrade(request, { data: searchParams })) return undefined
        return Response.json({ error: 'UpgradeRequired' }, { status: 426 })
      },
      websocket: {
        open: (socket) => {
          const peer: Peer = {
            params: socket.data,
            said: [],
            isOpen: true,
            send: (frame) => void socket.sendBinary(frame),
            close: () => socket.close(),
          }
          peerOf.set(socket, peer)
          this.peers.push(peer)
        },
        message: (socket, text) => void peerOf.get(socket)?.said.push(String(text)),
        close: (socket) => {
          const peer = peerOf.get(socket)
          if (peer !== undefined) peer.isOpen = false
        },
      },
    })
  }

  get followed(): FollowedService {
    return {
      did: service,
      allowPrivateNetwork: true,
      url: async () => `http://127.0.0.1:${this.#server.port}`,
      authorize: async () => 'Bearer none',
      pages: (did, signal) => {
        const pages = this.repos.get(did)
        if (pages === undefined) throw new RepoNotFound('no repo')
        return until(signal, pages())
      },
      standing: async () => ({ isEnrolled: true, boundaries: [] }),
      refusal: async () => ({ status: this.hasCommits ? 426 : 400, message: 'none' }),
    }
  }

  /** The next connection that is open and was asked for in this way. */
  async peer(isWanted: (params: URLSearchParams) => boolean): Promise<Peer> {
    return await eventually(
      'connection',
      () => this.peers.find((peer) => peer.isOpen && isWanted(peer.params)),
      { everyMs: 2 },
    )
  }

  /** Of everybody, its cursors said. */
  async everybody(): Promise<Peer> {
    const peer = await this.peer((params) => params.has('commits'))
    await eventually('cursors', () => (peer.said.length > 0 ? true : undefined), { everyMs: 2 })
    return peer
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}

export function enrolled(did: Did, boundaries: readonly string[], action = 'enroll'): Uint8Array {
  const time = new Date().toISOString()
  const body = { did, action, service: 'https://stratos.test', boundaries: [...boundaries] }
  return messageFrame('#enrollment', { ...body, time, seq: 1 })
}

export function heartbeat(body: { readonly age?: number; readonly behind?: boolean } = {}) {
  return messageFrame('#info', { name: 'Heartbeat', ...body })
}

export function committed(did: string, seq: number, ...ops: readonly IndexedOp[]): Uint8Array {
  return commitFrame({
    seq,
    did: parseDid(did),
    time: new Date().toISOString(),
    rev: nextTid({ nowMs: Date.now(), clockId: 0 }),
    ops: ops.map((op) => {
      const path = `${op.collection}/${op.rkey}`
      if (op.action === 'delete') return { action: op.action, path }
      return { action: op.action, path, cid: op.cid, record: op.content }
    }),
  })
}

async function* until<Item>(signal: AbortSignal, items: AsyncIterable<Item>): AsyncGenerator<Item> {
  const aborted = Promise.withResolvers<never>()
  aborted.promise.catch(() => undefined)
  signal.addEventListener('abort', () => aborted.reject(signal.reason), { once: true })
  const each = items[Symbol.asyncIterator]()
  for (;;) {
    const next = await Promise.race([each.next(), aborted.promise])
    if (next.done === true) return
    yield next.value
  }
}
