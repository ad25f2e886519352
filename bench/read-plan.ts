/** What the load generator of `bench/read.ts` is told. */
export interface Plan {
  readonly port: number
  readonly bearer: string
  readonly clients: number
  readonly seconds: number
  readonly requests: readonly PlannedRequest[]
}

export interface PlannedRequest {
  readonly verb: 'GET' | 'POST'
  readonly path: string
  readonly body: string | null
  /** URIs of the records in the answer, in order. */
  readonly expected: readonly string[]
}

/** What it reports. */
export interface Seen {
  /** Milliseconds, one for each answer. */
  readonly times: readonly number[]
  readonly seconds: number
  /** Of one core. */
  readonly share: number
}
