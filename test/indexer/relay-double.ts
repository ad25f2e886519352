import { encode } from '../../src/atproto/cbor.ts'
import type { DataObject } from '../../src/atproto/data.ts'
import { eventually } from '../kit/wait.ts'

/** A header and a body. */
export function frameOf(type: string, body: DataObject): Uint8Array {
  return Buffer.concat([encode({ op: 1, t: type }), encode(body)])
}

export function errorFrame(error: string): Uint8Array {
  return Buffer.concat([encode({ op: -1 }), encode({ error, message: error })])
}

export interface Told {
  readonly repo: string
  readonly path: string
  readonly action?: string
}

/** A commit as a PDS tells it, whose blocks nobody needs to understand. */
export function commitFrame(seq: number, told: readonly Told[], over: DataObject = {}): Uint8Array {
  return frameOf('#commit', {
    seq,
    repo: told[0]?.repo ?? 'did:plc:nobodyaaaaaaaaaaaaaaaaaa',
    rev: '3kabcdefghi22',
    since: null,
    time: '2026-01-01T00:00:00Z',
    rebase: false,
    tooBig: false,
    blobs: [],
    blocks: { $bytes: Buffer.from('no CAR at all').toString('base64').replace(/=+$/, '') },
    ops: told.map(({ path, action = 'create' }) => ({ action, path, cid: null })),
    ...over,
  })
}

interface Frame {
  readonly seq: number
  readonly bytes: Uint8Array | string
}

/** Somebody else's relay, which keeps what it has told. */
export class RelayDouble implements AsyncDisposable {
  /** What each connection asked for, in order; null for none. */
  readonly cursors: (string | null)[] = []
  readonly headers: Headers[] = []
  /** Told first to whoever comes. */
  greeting: readonly Uint8Array[] = []
  #frames: Frame[] = []
  readonly #sockets = new Set<Bun.ServerWebSocket<{ after: number }>>()
  readonly #server: Bun.Server<{ after: number }>

  constructor(options: { readonly port?: number } = {}) {
    this.#server = Bun.serve<{ after: number }>({
      port: options.port ?? 0,
      hostname: '127.0.0.1',
      fetch: (request, server) => {
        const cursor = new URL(request.url).searchParams.get('cursor')
        this.cursors.push(cursor)
        this.headers.push(request.headers)
        const after = cursor === null ? Number.POSITIVE_INFINITY : Number(cursor)
        return server.upgrade(request, { data: { after } }) ? undefined : new Response('no')
      },
      websocket: {
        maxPayloadLength: 64 * 1024 * 1024,
        backpressureLimit: 64 * 1024 * 1024,
        open: (socket) => {
          for (const bytes of this.greeting) socket.send(bytes)
          for (const { seq, bytes } of this.#frames) {
            if (seq > socket.data.after) socket.send(bytes)
          }
          this.#sockets.add(socket)
        },
        message: () => undefined,
        close: (socket) => void this.#sockets.delete(socket),
      },
    })
  }

  get port(): number {
    return this.#server.port ?? 0
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`
  }

  tell(seq: number, bytes: Uint8Array | string): void {
    this.#frames.push({ seq, bytes })
    for (const socket of this.#sockets) socket.send(bytes)
  }

  /** As if it had never told anything. */
  beginAnew(): void {
    this.#frames = []
  }

  /** Until so many connections were made, and are all that there are. */
  async connected(count: number): Promise<void> {
    await eventually(
      `connection ${count}`,
      () => (this.cursors.length >= count && this.#sockets.size > 0 ? true : undefined),
      { everyMs: 5 },
    )
  }

  /** Ends all connections, without a word. */
  cut(): void {
    for (const socket of this.#sockets) socket.terminate()
    this.#sockets.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}
