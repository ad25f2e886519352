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

/** Bytes that wait for a reader beyond what the kernel holds. */
const bufferedBytesMax = 1024 * 1024
/** A reader who takes nothing of it for so long is gone, or as good as. */
const stalledMsMax = 30_000

/**
 * The way to one reader. Nothing is ever left out: who does not take what is sent is closed with
 * `ConsumerTooSlow`, and reads on from their cursor.
 */
export class Outlet {
  readonly #socket: Socket
  readonly #format: Format
  readonly #ended: (reason: EndReason) => void
  readonly #failed: (error: unknown) => void
  #drained = Promise.withResolvers<void>()
  #state: 'open' | 'over' = 'open'
  #sentAtMs = performance.now()

  constructor(
    socket: Socket,
    parts: {
      readonly format: Format
      readonly ended: (reason: EndReason) => void
      /** Learns of a fault of ours. */
      readonly failed: (error: unknown) => void
    },
  ) {
    this.#socket = socket
    this.#format = parts.format
    this.#ended = parts.ended
    this.#failed = parts.failed
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

  /** Frames in their order. Those that come while the reader is behind count against it. */
  send(frames: readonly Uint8Array[]): void {
    if (this.#state === 'over' || frames.length === 0) return
    this.#sentAtMs = performance.now()
    this.#socket.cork(() => {
      for (const frame of frames) this.#put(frame)
    })
    if (this.#socket.getBufferedAmount() > bufferedBytesMax) this.tooSlow()
  }

  /** As `send`, of a page that was read for this reader alone: resolves when there is room again. */
  async sendPage(frames: readonly Uint8Array[]): Promise<void> {
    for (const frame of frames) {
      if (this.#state === 'over') return
      this.#put(frame)
      if (this.#socket.getBufferedAmount() > bufferedBytesMax / 2) await this.#room()
    }
    this.#sentAtMs = performance.now()
  }

  /** To be called when the socket has room. */
  drained(): void {
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
    this.#state = 'over'
    this.#socket.close(code, reason)
    this.drained()
    this.#ended(because)
    // Whoever does not even take the end of it is not waited for.
    setTimeout(() => this.#socket.terminate(), closingMsMax).unref()
  }

  /** The other side has left. */
  left(): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.drained()
    this.#ended('left')
  }

  #put(frame: Uint8Array): void {
    if (this.#format === 'cbor') this.#socket.sendBinary(frame)
    else this.#socket.sendText(frameJson(frame))
  }

  async #room(): Promise<void> {
    let before = this.#socket.getBufferedAmount()
    while (this.#state === 'open' && this.#socket.getBufferedAmount() > bufferedBytesMax / 4) {
      const late = Promise.withResolvers<'late'>()
      const timer = setTimeout(late.resolve, stalledMsMax, 'late')
      const outcome = await Promise.race([this.#drained.promise, late.promise])
      clearTimeout(timer)
      const left = this.#socket.getBufferedAmount()
      if (outcome === 'late' && left >= before) return this.tooSlow()
      before = left
    }
  }
}

/** For the counters. */
export type EndReason = 'left' | 'too-slow' | 'refused' | 'not-entitled' | 'failed' | 'stopping'

const closingMsMax = 5_000
