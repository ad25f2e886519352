import { openSocket } from '../remote/socket.ts'
import type { FirehoseUrl } from './firehose-url.ts'

export interface SocketOptions {
  /** Admits every address: closed networks and tests. */
  readonly allowPrivateNetwork: boolean
  /** All addresses of a name. */
  readonly lookup?: (hostname: string) => Promise<readonly string[]>
  /** Between the last sign of life and the question for another one. */
  readonly silenceMs: number
  /** For the answer, and for the opening. */
  readonly answerMs: number
}

/** Why a socket is no more; `text` can be logged. */
export interface SocketEnd {
  readonly text: string
}

/**
 * Reads an event stream until it ends, by whoever's will.
 * @param take gets each binary frame; what it returns ends the stream
 * @throws FetchRefused or FetchFailed, where nobody can be asked
 */
export async function readSocket(
  { url, cursor }: { readonly url: FirehoseUrl['url']; readonly cursor: number | undefined },
  take: (frame: Uint8Array | undefined) => SocketEnd | undefined,
  { options, signal }: { readonly options: SocketOptions; readonly signal: AbortSignal },
): Promise<SocketEnd> {
  const at = new URL(url)
  if (cursor !== undefined) at.searchParams.set('cursor', String(cursor))
  const { allowPrivateNetwork, lookup } = options
  const socket = await openSocket(at, { allowPrivateNetwork, lookup, signal })
  const ended = Promise.withResolvers<SocketEnd>()
  const abort = () => ended.resolve({ text: 'stopped' })
  signal.addEventListener('abort', abort, { once: true })
  const alive = new Alarm(options, socket, () => ended.resolve({ text: 'silent' }))
  // No more than the kind of an event: its text has the URL with what may be secret in it.
  socket.addEventListener('open', () => alive.heard())
  socket.addEventListener('ping', () => alive.heard())
  socket.addEventListener('pong', () => alive.heard())
  socket.addEventListener('error', () => ended.resolve({ text: 'broken' }))
  socket.addEventListener('close', ({ code }) => ended.resolve({ text: `closed with ${code}` }))
  let isOver = false
  socket.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
    if (isOver) return
    alive.heard()
    const end = take(data instanceof ArrayBuffer ? new Uint8Array(data) : undefined)
    if (end !== undefined) ended.resolve(end)
    isOver = end !== undefined
  })
  if (signal.aborted) abort()
  try {
    return await ended.promise
  } finally {
    isOver = true
    alive[Symbol.dispose]()
    signal.removeEventListener('abort', abort)
    socket.terminate()
  }
}

/** Rings when the other side gives no sign of life, even when it is asked for one. */
class Alarm implements Disposable {
  readonly #options: SocketOptions
  readonly #socket: WebSocket
  readonly #silent: () => void
  #timer: ReturnType<typeof setTimeout>

  constructor(options: SocketOptions, socket: WebSocket, silent: () => void) {
    this.#options = options
    this.#socket = socket
    this.#silent = silent
    this.#timer = setTimeout(silent, options.answerMs)
  }

  heard(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#ask(), this.#options.silenceMs)
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
  }

  #ask(): void {
    this.#timer = setTimeout(this.#silent, this.#options.answerMs)
    this.#socket.ping()
  }
}
