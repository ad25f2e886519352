import { overloaded } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Cursors, CursorsError } from './cursors.ts'
import { type EndReason, type Format, Outlet, type Socket } from './outlet.ts'

/** A stream once its reader is known to be entitled to it. */
export interface Wanted {
  /** What connections are counted by. */
  readonly caller: string
  readonly callerMax: number
  readonly format: Format
  readonly kind: 'repo' | 'commits' | 'enrollments'
  /** When the credential ends by which it was opened, where it does. */
  readonly expiresAtMs?: number | undefined
  /** Whether the reader may still have it. */
  readonly isEntitled: () => Promise<boolean>
  /** Undefined `cursors` where the reader says none. */
  readonly open: (outlet: Outlet, cursors: ReadonlyMap<Did, number> | undefined) => Source
}

/** What sends into an outlet. */
export interface Source {
  start(): Promise<void>
  stop(): void
  tick(): void
  /** Memberships may have changed. */
  changed?(): void
}

interface Parts {
  /** Grows with every change of who may read what. */
  readonly changes: () => number
  readonly log: Log
  readonly times?: Partial<Times>
}

interface Times {
  readonly tickMs: number
  /** From admission to the socket. */
  readonly upgradeMsMax: number
  /** From the socket to the last of the cursors. */
  readonly cursorsMsMax: number
}

/** All streams that are open, within limits, each for as long as its reader is entitled to it. */
export class Streams {
  readonly #parts: Parts
  readonly #open = new Set<Stream>()
  readonly #byCaller = new Map<string, number>()
  readonly #ended: Record<EndReason, number> = {
    left: 0,
    'too-slow': 0,
    refused: 0,
    'not-entitled': 0,
    failed: 0,
    stopping: 0,
  }
  readonly #timer: ReturnType<typeof setInterval>
  readonly #times: Times
  #changes = -1
  #ticks = 0
  #looking = false
  #stopping = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.#times = { ...timesDefault, ...parts.times }
    this.#timer = setInterval(() => void this.#tick(), this.#times.tickMs)
    this.#timer.unref()
  }

  /** Room for one more. @throws XrpcError 503 Overloaded */
  admit(wanted: Wanted): Stream {
    const own = this.#byCaller.get(wanted.caller) ?? 0
    if (this.#stopping) throw overloaded('the service is stopping')
    if (own >= wanted.callerMax) throw overloaded('you have too many streams open')
    if (this.#open.size >= streamsMax) throw overloaded('too many streams are open')
    this.#byCaller.set(wanted.caller, own + 1)
    const stream = new Stream(wanted, {
      log: this.#parts.log,
      times: this.#times,
      ended: (reason) => this.#over(stream, reason),
    })
    this.#open.add(stream)
    return stream
  }

  /** For whoever looks after the service. */
  counts() {
    const open = { repo: 0, commits: 0, enrollments: 0 }
    for (const { wanted } of this.#open) open[wanted.kind] += 1
    return { open, ended: this.#ended }
  }

  stop(): void {
    this.#stopping = true
    clearInterval(this.#timer)
    for (const stream of this.#open) stream.end(1001, 'the service is stopping', 'stopping')
  }

  #over(stream: Stream, reason: EndReason): void {
    if (!this.#open.delete(stream)) return
    this.#ended[reason] += 1
    const { caller } = stream.wanted
    const left = (this.#byCaller.get(caller) ?? 1) - 1
    if (left === 0) this.#byCaller.delete(caller)
    else this.#byCaller.set(caller, left)
  }

  async #tick(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      const changes = this.#parts.changes()
      const changed = changes !== this.#changes
      this.#changes = changes
      const isDue = ++this.#ticks % pingTicks === 0
      for (const stream of this.#open) await stream.look({ changed, isDue })
    } finally {
      this.#looking = false
    }
  }
}

/** One of them, from its admission on. Its socket comes a moment later. */
export class Stream {
  readonly wanted: Wanted
  readonly #ended: (reason: EndReason) => void
  readonly #log: Log
  readonly #times: Times
  readonly #cursors = new Cursors()
  #socket: Socket | undefined
  #outlet: Outlet | undefined
  #source: Source | undefined
  #waiting: ReturnType<typeof setTimeout> | undefined
  /** Whether it has its place no more, be it that its socket is still to come. */
  #isOver = false
  /** What was true at the door may have changed before anybody looked. */
  #isLooked = false

  constructor(
    wanted: Wanted,
    parts: {
      readonly log: Log
      readonly times: Times
      readonly ended: (reason: EndReason) => void
    },
  ) {
    this.wanted = wanted
    this.#times = parts.times
    this.#log = parts.log
    this.#ended = (reason) => {
      this.#isOver = true
      clearTimeout(this.#waiting)
      this.#source?.stop()
      parts.ended(reason)
    }
    // An upgrade that never comes about must not hold a place.
    this.#waiting = setTimeout(() => this.#ended('left'), parts.times.upgradeMsMax)
  }

  opened(socket: Socket): void {
    clearTimeout(this.#waiting)
    if (this.#isOver) return socket.close(1008, 'the stream has ended')
    const { format, kind } = this.wanted
    this.#socket = socket
    this.#outlet = new Outlet(socket, {
      format,
      ended: (reason) => this.#ended(reason),
      failed: (error) => this.#log.error('stream.failed', { kind, error }),
    })
    if (kind !== 'commits') this.#start(undefined)
    else
      this.#waiting = setTimeout(
        () => this.#refuse('cursors did not come'),
        this.#times.cursorsMsMax,
      )
  }

  message(message: string | Uint8Array): void {
    if (this.wanted.kind !== 'commits' || this.#source !== undefined) {
      this.#refuse('this stream takes no messages')
      return
    }
    try {
      const cursors = typeof message === 'string' ? this.#cursors.add(message) : undefined
      if (typeof message !== 'string') this.#refuse('cursors come as text')
      if (cursors !== undefined) this.#start(cursors)
    } catch (error) {
      if (!(error instanceof CursorsError)) throw error
      this.#refuse(error.message)
    }
  }

  drained(): void {
    this.#outlet?.drained()
  }

  closed(): void {
    if (this.#outlet === undefined) this.#ended('left')
    else this.#outlet.left()
  }

  end(code: number, message: string, reason: EndReason): void {
    if (this.#outlet === undefined) this.#ended(reason)
    else this.#outlet.end(code, message, reason)
  }

  async look({ changed, isDue }: { readonly changed: boolean; readonly isDue: boolean }) {
    const { expiresAtMs = Infinity, isEntitled } = this.wanted
    try {
      const isNew = !this.#isLooked
      this.#isLooked = true
      if (Date.now() >= expiresAtMs || ((changed || isNew) && !(await isEntitled()))) {
        return this.end(1008, 'not entitled any more', 'not-entitled')
      }
      if (changed) this.#source?.changed?.()
      if (isDue) this.#socket?.ping()
      this.#source?.tick()
    } catch (error) {
      // Of whom it cannot be said that they are entitled, they are not.
      this.#log.error('stream.look.failed', { kind: this.wanted.kind, error })
      this.end(1011, 'the stream cannot go on', 'failed')
    }
  }

  #start(cursors: ReadonlyMap<Did, number> | undefined): void {
    clearTimeout(this.#waiting)
    const outlet = this.#outlet
    if (outlet === undefined || !outlet.isOpen) return
    const source = this.wanted.open(outlet, cursors)
    this.#source = source
    source.start().catch((error: unknown) => outlet.broken(error))
  }

  #refuse(message: string): void {
    this.#outlet?.fail('InvalidRequest', message)
  }
}

/** Of all callers; each holds a socket and a few kilobytes. */
const streamsMax = 20_000
const timesDefault: Times = { tickMs: 250, upgradeMsMax: 10_000, cursorsMsMax: 60_000 }
/** Every 30 seconds. */
const pingTicks = 120
