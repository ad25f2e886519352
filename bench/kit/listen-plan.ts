/** What a process that reads streams is told. */
export interface ListenPlan {
  readonly port: number
  readonly streams: readonly PlannedStream[]
  /** From the first socket on. */
  readonly secondsMax: number
}

export interface PlannedStream {
  /** So many sockets of this kind. */
  readonly sockets: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Sent once it is open, where it is a stream of all commits. */
  readonly cursors: Readonly<Record<string, number>> | null
  /** Enrollments that each socket gets before it is ready. */
  readonly enrollments: number
  /** Commits that each socket is to get: not one less, and not one more. */
  readonly commits: number
  /** Counted by their first bytes and their lengths, or read. */
  readonly reading: 'count' | 'decode'
}

/** What it reports of each kind of stream. Times are milliseconds since 1970. */
export interface HeardStream {
  /** Bytes of all commits of one socket: of each the same. */
  readonly bytes: number
  /** When the first socket of it was asked for. */
  readonly askedMs: number
  readonly firstMs: number
  readonly lastMs: number
  /** Of each record that says when it was sent, in the order in which they came. */
  readonly sentMs: readonly number[]
  readonly receivedMs: readonly number[]
  /** The last seq of each actor. */
  readonly cursors: Readonly<Record<string, number>>
  /** Of each actor how many commits came. */
  readonly counts: Readonly<Record<string, number>>
}

export interface Heard {
  readonly streams: readonly HeardStream[]
  /** Of one core, by the reader, from its first socket to its last commit. */
  readonly share: number
}

/** Time that processes of one machine agree on, in milliseconds and parts of them. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now()
}
