import type { Did } from '../atproto/syntax.ts'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { sleep, unlessAborted } from '../lib/pause.ts'
import { openSocket } from '../remote/socket.ts'
import { ActorSockets } from './actor-sockets.ts'
import { standings } from './actors.ts'
import { Backfills, type RepoPages } from './backfills.ts'
import type { IndexOptions, IndexSql } from './database.ts'
import { Intake } from './intake.ts'
import { type SocketEnd, type SocketLimits, StreamSocket, type Taken } from './stream-socket.ts'
import { Told } from './told.ts'
import type { IndexWriter } from './writer.ts'

/** A service that the operator lets the index follow. */
export interface FollowedService {
  readonly did: Did
  /** Admits every address: where the operator says that it is, closed networks, and tests. */
  readonly allowPrivateNetwork: boolean
  /** Where it is now, without a path. */
  readonly url: () => Promise<string>
  /** A credential for one call, as the header Authorization has it. */
  readonly authorize: (method: string) => Promise<string>
  readonly pages: RepoPages
  /** How somebody stands there at this moment. */
  readonly standing: (did: Did) => Promise<Standing>
  /** What the service says to whom it does not let in. */
  readonly refusal: (method: string) => Promise<Refusal>
}

interface Standing {
  readonly isEnrolled: boolean
  readonly boundaries: readonly string[]
}

export interface Refusal {
  readonly status: number
  readonly message: string
}

export interface FollowerParts {
  readonly service: FollowedService
  readonly index: IndexOptions
  readonly sql: IndexSql
  readonly writer: IndexWriter
  readonly now?: () => number
  readonly log: Log
  readonly limits?: SocketLimits
  readonly hintMs?: number
}

/** How far the index is with one service. */
export interface FollowerState {
  readonly service: Did
  /** Whether the index is told everything as it happens. */
  readonly isLive: boolean
  /** Everything until then is in the index. Milliseconds since the epoch; undefined before. */
  readonly heardMs: number | undefined
  /** Events that came and are not stored. */
  readonly waiting: number
  /** Accounts whose repos are to be read anew. */
  readonly backfills: number
}

/**
 * Follows one service: who is enrolled, and what they write. Invariants:
 *
 * - The place in the stream is what the index holds, and nothing else: each connection begins with
 *   the cursors that are stored. What came and was not stored comes again.
 * - Messages take effect in their order. A heartbeat counts once all before it is stored.
 * - Of an event that cannot be read the actor's rows go, and are replaced by what the repo holds.
 *   One of which not even the actor is known ends the connection: nothing may be passed over.
 *
 * For example: the index is killed between two batches. The next connection names the cursors of the
 * first batch, and the service sends the second one again.
 */
export class Follower {
  readonly #parts: FollowerParts
  readonly #backfills: Backfills
  readonly #intake: Intake
  readonly #told: Told
  #socket: StreamSocket | undefined
  /** Of a service that has no stream for everybody. */
  #sockets: ActorSockets | undefined
  readonly #hinted = new Set<Did>()
  #renewedAtMs = -Infinity

  constructor(parts: FollowerParts) {
    const { service, index, writer, log, now = Date.now } = parts
    this.#parts = parts
    const intake = new Intake(writer, service.did)
    const backfills = new Backfills({
      service: service.did,
      index,
      pages: service.pages,
      store: (events) => writer.write(events),
      stored: () => intake.stored(),
      log,
    })
    this.#intake = intake
    this.#backfills = backfills
    this.#told = new Told({
      service: service.did,
      intake,
      backfills,
      now,
      log,
      provenMs: () => this.#sockets?.prove(now()) ?? Infinity,
      memberChanged: (did) => this.#memberChanged(did),
    })
  }

  get state(): FollowerState {
    return {
      service: this.#parts.service.did,
      isLive: this.#told.isLive,
      heardMs: this.#told.heardMs,
      waiting: (this.#socket?.waiting ?? 0) + this.#intake.waiting + this.#backfills.held,
      backfills: this.#backfills.due,
    }
  }

  /** Until `signal` is aborted. @throws where the index takes nothing any more */
  async run(signal: AbortSignal): Promise<void> {
    const { service, log } = this.#parts
    try {
      for (let failures = 0; ; failures++) {
        try {
          const end = await this.#connect(signal)
          signal.throwIfAborted()
          log.warn('index.stream.ended', { service: service.did, ...end })
          // Far behind as the index is, all that came was stored.
          if (end !== undefined && 'kind' in end && end.kind === 'behind') failures = 0
        } catch (error) {
          if (signal.aborted) return
          if (this.#intake.broken !== undefined) throw this.#intake.broken.error
          log.warn('index.stream.failed', { service: service.did, error })
        }
        if (this.#told.isLive) failures = 0
        this.#told.begin('following')
        const wait = { attempt: failures, firstMs: againMs, mostMs: againMsMax }
        await sleep(backoffMs({ ...wait, random: Math.random() }), signal)
      }
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      await this.#backfills.stop()
    }
  }

  /**
   * Somebody may have enrolled or left. It is for the service to say so: should its stream not have
   * told what the service answers when it is asked, a new connection begins with everybody. Should
   * there be none, the next one does.
   * @returns false where too many are looked into already
   */
  hint(did: Did): boolean {
    if (!this.#told.isLive || this.#hinted.has(did)) return true
    if (this.#hinted.size >= hintsMax) return false
    this.#hinted.add(did)
    void this.#lookInto(did)
      .catch((error: unknown) => {
        this.#parts.log.warn('index.hint.failed', { service: this.#parts.service.did, did, error })
      })
      .finally(() => this.#hinted.delete(did))
    return true
  }

  async #lookInto(did: Did): Promise<void> {
    const { service, log } = this.#parts
    const { isEnrolled, boundaries } = await service.standing(did)
    const stands = isEnrolled ? boundaries : undefined
    log.debug('index.hint', { service: service.did, did, isKnown: this.#told.knows(did, stands) })
    if (this.#told.knows(did, stands)) return
    // It may be on its way.
    await Bun.sleep(this.#parts.hintMs ?? hintMsDefault)
    const nowMs = performance.now()
    if (this.#told.knows(did, stands) || nowMs - this.#renewedAtMs < renewEveryMs) return
    this.#renewedAtMs = nowMs
    log.warn('index.stream.renewed', { service: service.did, did })
    this.#socket?.[Symbol.dispose]()
  }

  /** One connection, from its cursors to its end. */
  async #connect(signal: AbortSignal): Promise<object | undefined> {
    await this.#look(signal)
    // Of whom nothing is known all would come twice: from their logs, and from their repos.
    if (this.#told.cursors.size === 0) {
      const end = await this.#read(signal, 'members')
      if (!this.#told.isLive) return await this.#explained(end)
      await this.#look(signal)
      await this.#fill(signal)
      await this.#look(signal)
    }
    const end = await this.#read(signal, 'all')
    const refused = end?.kind === 'refused' ? await this.#refusal() : undefined
    if (refused?.status !== badRequest && this.#told.refusal !== 'InvalidRequest') {
      return { ...end, ...refused }
    }
    this.#parts.log.info('index.stream.each', { service: this.#parts.service.did })
    await this.#look(signal)
    return await this.#explained(await this.#readEach(signal))
  }

  async #explained(end: SocketEnd | undefined): Promise<object | undefined> {
    return end?.kind === 'refused' ? { ...end, ...(await this.#refusal()) } : end
  }

  async #refusal(): Promise<Refusal> {
    return await this.#parts.service.refusal(streamMethod)
  }

  /** Where the index is with everybody of whom it knows. Whose rows are missing is read anew. */
  async #look(signal: AbortSignal): Promise<void> {
    const { sql, service } = this.#parts
    await unlessAborted(this.#intake.stored(), signal)
    this.#told.forget()
    for (let after = ''; ;) {
      const page = await standings(sql, service.did, { after, limit: pageMax })
      signal.throwIfAborted()
      for (const member of page) {
        const { did, backfillDue } = member
        after = did
        this.#told.learn(member)
        if (backfillDue && !this.#backfills.has(did)) this.#backfills.add(did)
      }
      if (page.length < pageMax) return
    }
  }

  /** Waits until everybody's repo was read, or could not be. */
  async #fill(signal: AbortSignal): Promise<void> {
    const { service, log } = this.#parts
    const tell = () =>
      log.info('index.backfilling', { service: service.did, left: this.#backfills.due })
    tell()
    const timer = setInterval(tell, progressMs)
    const left = Promise.withResolvers<void>()
    signal.addEventListener('abort', () => left.resolve(), { once: true })
    try {
      await Promise.race([this.#backfills.idle(), left.promise])
    } finally {
      clearInterval(timer)
    }
    signal.throwIfAborted()
  }

  /** The enrollments, and an account's events each by a stream of its own. */
  async #readEach(signal: AbortSignal): Promise<SocketEnd | undefined> {
    await using sockets = new ActorSockets({
      open: (did) => this.#open({ did, cursor: String(this.#told.cursors.get(did) ?? 0) }, signal),
      take: (did, taken) => this.#take(taken, signal, did),
    })
    this.#sockets = sockets
    try {
      const failed = sockets.failure()
      return await Promise.race([this.#read(signal, 'enrollments'), failed])
    } finally {
      this.#sockets = undefined
      this.#socket?.[Symbol.dispose]()
    }
  }

  #memberChanged(did: Did): void {
    if (this.#told.has(did)) this.#sockets?.add(did)
    else this.#sockets?.remove(did)
  }

  /**
   * Reads until the stream ends.
   * @param form enrollments and events; enrollments; or enrollments until everybody was named
   */
  async #read(
    signal: AbortSignal,
    form: 'all' | 'enrollments' | 'members',
  ): Promise<SocketEnd | undefined> {
    this.#told.begin(form === 'members' ? 'learning' : 'following')
    using socket = await this.#open(form === 'all' ? { commits: 'true' } : {}, signal)
    const leave = () => socket[Symbol.dispose]()
    signal.addEventListener('abort', leave, { once: true })
    if (signal.aborted) leave()
    this.#socket = socket
    try {
      for (;;) {
        const wasLive = this.#told.isLive
        const taken = await socket.take()
        if (taken.frames.length === 0) return socket.end
        await this.#take(taken, signal)
        if (wasLive || !this.#told.isLive) continue
        if (form !== 'all') await this.#drop(signal)
        if (form === 'members') return undefined
      }
    } finally {
      signal.removeEventListener('abort', leave)
      this.#socket = undefined
    }
  }

  async #drop(signal: AbortSignal): Promise<void> {
    this.#told.dropUnnamed()
    await unlessAborted(this.#intake.flush(), signal)
  }

  async #take({ frames, sentMs }: Taken, signal: AbortSignal, of?: Did): Promise<void> {
    for (let next = 0; next < frames.length; next += framesMax) {
      for (const frame of frames.slice(next, next + framesMax))
        this.#told.take(frame, { of, sentMs })
      await unlessAborted(this.#intake.flush(), signal)
    }
  }

  async #open(
    params: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<StreamSocket> {
    const { service, limits } = this.#parts
    const url = new URL(`/xrpc/${streamMethod}`, await service.url())
    url.protocol = url.protocol === 'http:' ? 'ws:' : 'wss:'
    for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value)
    const authorization = await service.authorize(streamMethod)
    const cursors = params['commits'] === undefined ? {} : { cursors: this.#told.cursors }
    // A stream of everybody says something every two seconds.
    const silenceMsMax = params['did'] === undefined ? silenceMsMaxOfAll : undefined
    const times = silenceMsMax === undefined ? {} : { silenceMsMax, isProven: true }
    const { allowPrivateNetwork } = service
    const way = { allowPrivateNetwork, headers: { authorization }, signal }
    return new StreamSocket(await openSocket(url, way), { ...cursors, ...times, ...limits })
  }
}

const streamMethod = 'zone.stratos.sync.subscribeRecords'
const badRequest = 400
const silenceMsMaxOfAll = 15_000
/** Read from the index at once. */
const pageMax = 1_000
/** Decoded before anybody else has a turn. */
const framesMax = 500
/** Until what a service answers should have come by its stream. */
const hintMsDefault = 5_000
/** Looked into at once. */
const hintsMax = 20
const renewEveryMs = 60_000
const againMs = 250
const againMsMax = 15_000
const progressMs = 10_000
