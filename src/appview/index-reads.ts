import type { ParameterOrJSON } from 'postgres'
import { overloaded, XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { connectIndex, type IndexSql } from '../indexer/database.ts'
import { failureKind } from '../indexer/refusal.ts'
import { Lanes } from '../lib/lanes.ts'
import { Shares } from '../lib/shares.ts'

export interface IndexReadsOptions {
  /** As in `postgres://user:password@host:5432/database`; undefined while there is none. */
  readonly url: string | undefined
  readonly connectionsMax?: number
  /** After which the server gives a statement up. */
  readonly statementMsMax?: number
  /** After which a server that says nothing is given up. */
  readonly answerMsMax?: number
}

export type IndexArgument = ParameterOrJSON<number>

/**
 * Reads of the index, one statement each. As many are under way as there are connections, so that
 * none stands behind a slow one, and a bounded number waits. One reader has a part of the connections
 * and of those who wait, so that nobody waits for long behind somebody else. The driver opens a
 * connection anew when it breaks; what was under way then is refused, and nothing of why is told to
 * callers.
 */
export class IndexReads implements AsyncDisposable {
  readonly #options: IndexReadsOptions
  readonly #connectionsMax: number
  readonly #answerMsMax: number
  readonly #all: Lanes<() => void>
  readonly #ofReader: Lanes<() => void>
  readonly #shares: Shares<Did>
  #url: string | undefined
  #sql: IndexSql | undefined

  constructor(options: IndexReadsOptions) {
    this.#options = options
    this.#connectionsMax = options.connectionsMax ?? connectionsMaxDefault
    this.#answerMsMax = options.answerMsMax ?? answerMsMaxDefault
    this.#all = new Lanes(this.#connectionsMax)
    this.#ofReader = new Lanes(Math.ceil(this.#connectionsMax * readerPart))
    this.#shares = new Shares({
      ofOneMax: ofReaderMax,
      togetherMax: this.#connectionsMax + waitingMax,
      refusal,
    })
    this.#url = options.url
    this.#sql = this.#connect()
  }

  /** The index is elsewhere, or nowhere, from now on. */
  use(url: string | undefined): void {
    if (url === this.#url) return
    this.#url = url
    this.#renew()
  }

  /**
   * The rows of one statement, which is prepared: `text` is one of a few.
   * @param reader on whose behalf; undefined for questions of our own
   * @throws XrpcError 503 IndexUnavailable while the index cannot be read, 503 Overloaded
   * @throws IndexRefused where the statement itself is at fault
   */
  async rows<Row extends object>(
    text: string,
    args: readonly IndexArgument[],
    reader?: Did,
  ): Promise<readonly Row[]> {
    return await this.#shares.run(reader, async () => {
      if (reader === undefined) return await this.#next<Row>(text, args)
      return await inLane(this.#ofReader, reader, () => this.#next<Row>(text, args))
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sql?.end({ timeout: endSeconds })
  }

  #renew(): void {
    const old = this.#sql
    this.#sql = this.#connect()
    void old?.end({ timeout: 0 }).catch(() => undefined)
  }

  #connect(): IndexSql | undefined {
    if (this.#url === undefined) return undefined
    return connectIndex({
      url: this.#url,
      connectionsMax: this.#connectionsMax,
      statementMsMax: this.#options.statementMsMax ?? statementMsMaxDefault,
    })
  }

  /** On the next connection that is free. */
  async #next<Row extends object>(
    text: string,
    args: readonly IndexArgument[],
  ): Promise<readonly Row[]> {
    try {
      return await inLane(this.#all, 'all', () => this.#read<Row>(text, args))
    } catch (error) {
      if (error instanceof XrpcError) throw error
      throw failureKind(error) === 'refused' ? new IndexRefused(error) : indexUnavailable(error)
    }
  }

  /** Once more where the connection was lost: to read again changes nothing. */
  async #read<Row extends object>(
    text: string,
    args: readonly IndexArgument[],
  ): Promise<readonly Row[]> {
    const once = async () => {
      if (this.#sql === undefined) throw indexUnavailable(new Error('there is no index yet'))
      return await this.#sql.unsafe<Row[]>(text, [...args], { prepare: true })
    }
    try {
      return await this.#inTime(once())
    } catch (error) {
      if (!lostCodes.has(codeOf(error))) throw error
      return await this.#inTime(once())
    }
  }

  /** A server that says nothing any more would keep its connections for as long as TCP hopes. */
  async #inTime<Result>(answer: Promise<Result>): Promise<Result> {
    const late = Promise.withResolvers<never>()
    const timer = setTimeout(() => {
      late.reject(indexUnavailable(new Error('the index did not answer in time')))
      this.#renew()
    }, this.#answerMsMax)
    try {
      return await Promise.race([answer, late.promise])
    } finally {
      clearTimeout(timer)
      late.promise.catch(() => undefined)
    }
  }
}

async function inLane<Result>(
  lanes: Lanes<() => void>,
  lane: string,
  task: () => Promise<Result>,
): Promise<Result> {
  for (;;) {
    const turn = Promise.withResolvers<void>()
    if (lanes.enter(lane, turn.resolve)) break
    await turn.promise
  }
  try {
    return await task()
  } finally {
    lanes.leave(lane)?.()
  }
}

function refusal(whose: 'own' | 'all'): XrpcError {
  return overloaded(
    whose === 'own'
      ? 'you are reading many feeds already'
      : 'too many feeds are read at this moment',
  )
}

/**
 * A read that no server would answer: a fault of ours. What the database says about it stays out of
 * it, as that may quote what somebody wrote.
 */
class IndexRefused extends Error {
  override readonly name = 'IndexRefused'

  constructor(refusal: unknown) {
    super(`the index refused a read: ${codeOf(refusal)}`)
  }
}

/** Why a read failed, for the operator: without addresses, names or passwords. */
export function codeOf(error: unknown): string {
  const cause = error instanceof XrpcError ? error.cause : error
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  return typeof code === 'string' ? code : 'unknown'
}

export function indexUnavailable(cause: unknown): XrpcError {
  return new XrpcError(503, 'IndexUnavailable', 'the index cannot be read now, try again', {
    headers: { 'retry-after': '5' },
    cause,
  })
}

const connectionsMaxDefault = 8
/** Of the connections: it takes two who ask for all they may to have others wait. */
const readerPart = 1 / 2
/** Under way or waiting: many more than an app asks for, and a tenth of all who may wait. */
const ofReaderMax = 100
/** A timeline takes milliseconds: what takes longer has gone wrong, and stands in others' way. */
const statementMsMaxDefault = 5_000
/** What the server itself gives up is told before. */
const answerMsMaxDefault = 7_000
/** At some milliseconds each, no one of them waits for much over a second. */
const waitingMax = 1_000
/** Until statements that still run are cut off: whoever asked for them has gone. */
const endSeconds = 1
/** Of connections that broke, be it by the hand of the operator. */
const lostCodes: ReadonlySet<string> = new Set([
  '57P01',
  'CONNECTION_CLOSED',
  'ECONNRESET',
  'EPIPE',
])
