import { internalFault, XrpcError } from '../atproto/errors.ts'
import { errorFrame, frameJson } from '../atproto/stream-frame.ts'

/** What a stream needs of a WebSocket. */
export interface Socket {
  sendBinary(bytes: Uint8Array): number
  sendText(text: string): number
  /** Sends what `task` sends in as few packets as it fits into. */
  cork(task: () => void): void
  getBufferedAmount(): number
  ping(): number
  close(code: number, reason: string): void
  /** Without waiting for the other side. */
  terminate(): void
}

export type Format = 'cbor' | 'json'

/**
 * The way to one reader. Nothing is ever left out: who does not take what is sent is closed with
 * `ConsumerTooSlow`, and reads on from their cursor. What waits for a reader, beyond what the kernel
 * holds, is bounded by `bufferedBytesMax` and what was sent last.
 */
export class Outlet {
  readonly #socket: Socket
  readonly #format: Format
  readonly #ended: (reason: EndReason) => void
  readonly #failed: (error: unknown) => void
  #drained = Promise.withResolvers<void>()
  #state: 'open' | 'over' = 'open'
  #sentAtMs = performance.now()
  #drainedAtMs = performance.now()
  readonly #stalledMsMax: number

  constructor(
    socket: Socket,
    parts: {
      readonly format: Format
      readonly ended: (reason: EndReason) => void
      /** Learns of a fault of ours. */
      readonly failed: (error: unknown) => void
      readonly stalledMsMax?: number
    },
  ) {
    this.#socket = socket
    this.#format = parts.format
    this.#ended = parts.ended
    this.#failed = parts.failed
    this.#stalledMsMax = parts.stalledMsMax ?? stalledMsMaxDefault
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  /** Whether the reader is some way behind. */
  get isBusy(): boolean {
    return this.#socket.getBufferedAmount() > bufferedBytesMax / 4
  }

  /** When something was last sent. */
  get sentAtMs(): number {
    return this.#sentAtMs
  }

  /** Frames in their order. A reader who is too far behind to be given them is closed. */
  send(frames: readonly Uint8Array[]): void {
    if (this.#state === 'over' || frames.length === 0) return
    if (this.#socket.getBufferedAmount() > bufferedBytesMax) return this.tooSlow()
    this.#sentAtMs = performance.now()
    this.#socket.cork(() => {
      for (const frame of frames) this.#put(frame)
    })
  }

  /**
   * As `send`, of what was read for this reader alone: resolves when there is room again. A slow
   * reader is waited for as long as they take something.
   * @param isWanted is asked each time; what is left is not sent where it says no
   */
  async sendPage(frames: readonly Uint8Array[], isWanted = () => true): Promise<void> {
    for (let next = 0; next < frames.length;) {
      if (this.#socket.getBufferedAmount() > bufferedBytesMax / 2) await this.#room()
      if (this.#state === 'over' || !isWanted()) return
      this.#sentAtMs = performance.now()
      this.#socket.cork(() => {
        for (let bytes = 0; next < frames.length && bytes < corkedBytesMax; next++) {
          const frame = frames[next]
          if (frame === undefined) break
          this.#put(frame)
          bytes += frame.length
        }
      })
    }
  }

  /** To be called when the reader has taken something. */
  drained(): void {
    this.#drainedAtMs = performance.now()
    this.#drained.resolve()
    this.#drained = Promise.withResolvers<void>()
  }

  tooSlow(): void {
    this.fail('ConsumerTooSlow', 'the reader did not take what was sent', 'too-slow')
  }

  /** Something of ours failed: never the silence of a stream that looks whole. */
  broken(error: unknown): void {
    if (this.#state === 'over') return
    if (error instanceof XrpcError) this.fail(error.error, error.message)
    else {
      this.#failed(error)
      this.#put(errorFrame(internalFault.error, internalFault.message))
      this.end(1011, internalFault.error, 'failed')
    }
  }

  /** Ends the stream with an error. */
  fail(error: string, message: string, reason: EndReason = 'refused'): void {
    if (this.#state === 'over') return
    this.#put(errorFrame(error, message))
    this.end(1008, error, reason)
  }

  end(code: number, reason: string, because: EndReason): void {
    if (this.#state === 'over') return
    // First: closing may be told at once, as if the other side had left.
    this.#over(because)
    this.#socket.close(code, reason)
    // Whoever does not even take the end of it is not waited for.
    setTimeout(() => this.#socket.terminate(), closingMsMax).unref()
  }

  /** The other side has left. */
  left(): void {
    this.#over('left')
  }

  #put(frame: Uint8Array): void {
    if (this.#state === 'over') return
    const sent =
      this.#format === 'cbor'
        ? this.#socket.sendBinary(frame)
        : this.#socket.sendText(frameJson(frame))
    if (sent !== droppedSend) return
    // The socket is gone, or takes no more: what follows must not look like all there is.
    this.#socket.terminate()
    this.#over('too-slow')
  }

  #over(because: EndReason): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.drained()
    this.#ended(because)
  }

  /** Resolves when what waits is down to a part of what may wait, or the stream is over. */
  async #room(): Promise<void> {
    const waitsFromMs = performance.now()
    while (this.#state === 'open' && this.isBusy) {
      const idleMs = performance.now() - Math.max(waitsFromMs, this.#drainedAtMs)
      if (idleMs >= this.#stalledMsMax) return this.tooSlow()
      const late = Promise.withResolvers<void>()
      const timer = setTimeout(late.resolve, this.#stalledMsMax - idleMs)
      await Promise.race([this.#drained.promise, late.promise])
      clearTimeout(timer)
    }
  }
}

/** Bytes that wait for a reader. */
const bufferedBytesMax = 1024 * 1024
/** Of one page that go out together, before it is looked how much waits. */
const corkedBytesMax = 64 * 1024
/** A reader who takes nothing of it for so long is gone, or as good as. */
const stalledMsMaxDefault = 30_000
/** What a socket answers that did not even queue what it was given. */
const droppedSend = 0

/** For the counters. */
export type EndReason = 'left' | 'too-slow' | 'refused' | 'not-entitled' | 'failed' | 'stopping'

const closingMsMax = 5_000
