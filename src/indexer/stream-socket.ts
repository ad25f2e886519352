import type { Did } from '../atproto/syntax.ts'

export interface SocketLimits {
  /** Nothing was heard for so long, not even a ping: the other side is gone. */
  readonly silenceMsMax?: number
  /** Of frames that came and were not taken. */
  readonly bytesMax?: number
}

interface StreamOptions extends SocketLimits {
  /** Where the reader is with each account, for streams that ask for it. */
  readonly cursors?: ReadonlyMap<Did, number>
  /** Whether it is asked for signs of life all the time, so that it is known when frames were sent. */
  readonly isProven?: boolean
}

export interface Taken {
  readonly frames: readonly Uint8Array[]
  /**
   * All of them were sent then or later. Milliseconds since the epoch; -Infinity where that is not
   * known.
   */
  readonly sentMs: number
}

/** How a stream ended. `behind`: more came than was taken. */
export type SocketEnd =
  | { readonly kind: 'refused' | 'closed'; readonly code: number; readonly reason: string }
  | { readonly kind: 'silent' | 'behind' | 'left' }

/**
 * One connection to a stream. A WebSocket cannot be told to wait, so what comes waits here, up to a
 * limit: beyond it the connection is closed. What came before can still be taken, and whoever goes on
 * from what was stored misses nothing.
 *
 * A frame may have been on its way for long, where a line is full. An answer to a ping stands behind
 * all that was sent before it, so that what comes after the answer was sent after the ping.
 */
export class StreamSocket implements Disposable {
  readonly #socket: WebSocket
  readonly #bytesMax: number
  readonly #silenceMsMax: number
  readonly #opened = Promise.withResolvers<boolean>()
  #frames: Uint8Array[] = []
  #bytes = 0
  /** Since when the first of them was sent. */
  #firstMs = -Infinity
  #askedMs: number | undefined
  #provenMs = -Infinity
  #come = Promise.withResolvers<void>()
  #isOpen = false
  #end: SocketEnd | undefined
  #silence: ReturnType<typeof setTimeout> | undefined
  #asking: ReturnType<typeof setInterval> | undefined

  /** @param socket one that is still to open */
  constructor(socket: WebSocket, options: StreamOptions) {
    const { cursors, isProven = false, silenceMsMax, bytesMax } = options
    this.#bytesMax = bytesMax ?? bytesMaxDefault
    this.#silenceMsMax = silenceMsMax ?? silenceMsMaxDefault
    this.#socket = socket
    this.#listen()
    this.#socket.addEventListener('open', () => {
      this.#isOpen = true
      this.#opened.resolve(true)
      if (isProven) this.#keepAsking()
      if (cursors === undefined) return
      for (const message of cursorMessages(cursors)) this.#socket.send(message)
    })
    this.#socket.addEventListener('ping', () => this.#listen())
    this.#socket.addEventListener('pong', () => {
      this.#listen()
      this.#provenMs = this.#askedMs ?? this.#provenMs
      this.#askedMs = undefined
    })
    this.#socket.addEventListener('message', ({ data }) => this.#take(data))
    this.#socket.addEventListener('close', ({ code, reason }) => {
      this.#over({ kind: this.#isOpen ? 'closed' : 'refused', code, reason })
    })
  }

  /** Whether the other side let us in. */
  async opened(): Promise<boolean> {
    return await this.#opened.promise
  }

  /** How many came and were not taken. */
  get waiting(): number {
    return this.#frames.length
  }

  /** Set once nothing comes any more. */
  get end(): SocketEnd | undefined {
    return this.#end
  }

  /** Until when all that was sent is known to have come, and was taken; -Infinity where it is not. */
  get provenMs(): number {
    return this.#frames.length === 0 ? this.#provenMs : -Infinity
  }

  /** Asks for a sign of life, which comes after all that was sent before it. */
  prove(nowMs: number): void {
    if (this.#askedMs !== undefined || this.#end !== undefined) return
    this.#askedMs = nowMs
    this.#socket.ping()
  }

  /** What came, in its order: at least one frame, or none once the stream is over. */
  async take(): Promise<Taken> {
    while (this.#frames.length === 0 && this.#end === undefined) {
      await this.#come.promise
      this.#come = Promise.withResolvers<void>()
    }
    const taken = { frames: this.#frames, sentMs: this.#firstMs }
    this.#frames = []
    this.#bytes = 0
    return taken
  }

  [Symbol.dispose](): void {
    this.#over({ kind: 'left' })
  }

  #take(data: unknown): void {
    this.#listen()
    // Text is of another form of the stream, which was not asked for.
    if (!(data instanceof ArrayBuffer) || this.#end !== undefined) return
    if (this.#frames.length === 0) this.#firstMs = this.#provenMs
    this.#frames.push(new Uint8Array(data))
    this.#bytes += data.byteLength
    this.#come.resolve()
    if (this.#bytes > this.#bytesMax) this.#over({ kind: 'behind' })
  }

  #keepAsking(): void {
    this.prove(Date.now())
    this.#asking = setInterval(() => this.prove(Date.now()), askEveryMs)
  }

  #listen(): void {
    clearTimeout(this.#silence)
    if (this.#end !== undefined) return
    this.#silence = setTimeout(() => this.#over({ kind: 'silent' }), this.#silenceMsMax)
  }

  #over(end: SocketEnd): void {
    if (this.#end !== undefined) return
    this.#end = end
    clearTimeout(this.#silence)
    clearInterval(this.#asking)
    this.#opened.resolve(false)
    this.#come.resolve()
    this.#socket.terminate()
  }
}

/** What is told every two seconds counts as so much older at most, and 5 s are too old. */
const askEveryMs = 500
/** Services ping every 30 seconds. */
const silenceMsMaxDefault = 75_000
/** Some tens of thousands of posts. */
const bytesMaxDefault = 32 * 1024 * 1024
/** A service takes a mebibyte. @see protocol.md, section 6 */
const messageCharsMax = 900_000

function* cursorMessages(cursors: ReadonlyMap<Did, number>): Generator<string> {
  let part: Record<string, number> = {}
  let chars = 0
  for (const [did, seq] of cursors) {
    part[did] = seq
    chars += did.length + 32
    if (chars < messageCharsMax) continue
    yield JSON.stringify({ cursors: part, more: true })
    part = {}
    chars = 0
  }
  yield JSON.stringify({ cursors: part, more: false })
}
