/**
 * What a load generator is told. Everything that depends on the server under test (where it is,
 * paths, credentials, bodies, answers) stands here, so that one generator drives them all.
 */
export interface Plan {
  readonly port: number
  readonly requests: readonly PlannedRequest[]
  readonly clients: readonly PlannedClient[]
  /** Before anything is measured; what the clients ask then is counted as answered, too. */
  readonly warmUpSeconds: number
  /** Null: until every client has done all its steps. */
  readonly seconds: number | null
  /**
   * Requests a second over all clients, each sent when it is due and timed from then on, however
   * late it is sent. Null: every client asks as soon as it was answered.
   */
  readonly perSecond: number | null
}

export interface PlannedRequest {
  readonly verb: 'GET' | 'POST'
  readonly path: string
  /**
   * `<word>` in a value or in the body stands for the word of the step, `<count>` for a number,
   * `<now>` for the time at which it is sent.
   */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
  readonly expected: Expected
}

/** One connection. */
export interface PlannedClient {
  readonly steps: readonly Step[]
  /** Whether it begins anew after its last step. */
  readonly repeats: boolean
}

/** Which request to send, by its place in the plan, and the word in it. */
export type Step = readonly [request: number, word?: string]

/** What an answer must be, besides being a 200. */
export type Expected =
  | {
      /** No JSON, but the bytes that were looked into before. */
      readonly kind: 'bytes'
      readonly sha256: string
    }
  | {
      readonly kind: 'text'
      readonly text: string
    }
  | {
      readonly kind: 'records'
      /** In order; the same bytes are expected every time. */
      readonly uris: readonly string[]
    }
  | {
      readonly kind: 'commit'
      readonly repo: string
      readonly collection: string
      /** How many records the answer names: none for a deletion, a list for applyWrites. */
      readonly records: 'none' | 'one' | number
    }

/** What the generator reports. */
export interface Seen {
  /** Milliseconds, one for each answer that was measured. */
  readonly times: readonly number[]
  readonly seconds: number
  /** Of one core, by the generator itself. */
  readonly share: number
  /** Good answers to each request of the plan, with those of the warm-up. */
  readonly answered: readonly number[]
  /** Whether a client came to the end of its steps before the time was over. */
  readonly ranOut: boolean
}
