import type { Did } from '../atproto/syntax.ts'
import { unreachable } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { Backfills } from './backfills.ts'
import { decodeFrame, eventPlace, type StreamMessage } from './decode.ts'
import type { IndexEvent } from './event.ts'
import { FrameError } from './frame-reader.ts'
import type { Intake } from './intake.ts'

interface Parts {
  readonly service: Did
  readonly intake: Intake
  readonly backfills: Backfills
  readonly now: () => number
  readonly log: Log
  /**
   * Until when the streams of accounts are known to have told everything, where each has its own.
   * Milliseconds since the epoch; -Infinity where that is not known.
   */
  readonly provenMs: () => number
  /** Learns of everybody who is enrolled or has left, as it is told. */
  readonly memberChanged: (did: Did) => void
}

/** As the index has somebody who is enrolled. */
interface KnownMember {
  readonly did: Did
  readonly serviceUrl: string
  readonly boundaries: readonly string[]
  /** Of the last event. */
  readonly seq: number
}

/** Where a frame comes from. */
interface From {
  /** The account whose stream it is. */
  readonly of?: Did | undefined
  /** It was sent then or later. Milliseconds since the epoch; -Infinity where that is not known. */
  readonly sentMs: number
}

/** What one connection to a service says, taken to what it means for the index. */
export class Told {
  readonly #parts: Parts
  /** Who is enrolled as far as the index was told, and what it was told of them. */
  readonly #members = new Map<Did, string>()
  readonly #seqs = new Map<Did, number>()
  /** Of the members those of whom this connection has said that they are enrolled. */
  readonly #named = new Set<Did>()
  #isLearning = false
  #isLive = false
  #heardMs: number | undefined
  #refusal: string | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Whether the connection has told all there was before, and goes on as it happens. */
  get isLive(): boolean {
    return this.#isLive
  }

  /** Everything until then is in the index. */
  get heardMs(): number | undefined {
    return this.#heardMs
  }

  /** Error that the connection ended with. */
  get refusal(): string | undefined {
    return this.#refusal
  }

  /** What is known of members at the start of a connection, and where each is. */
  get cursors(): ReadonlyMap<Did, number> {
    return this.#seqs
  }

  knows(did: Did, boundaries: readonly string[] | undefined): boolean {
    const known = this.#members.get(did)
    if (boundaries === undefined) return known === undefined
    return known === memberKey(this.#parts.intake.serviceUrl, boundaries)
  }

  has(did: Did): boolean {
    return this.#members.has(did)
  }

  /** Another connection is to begin. Whoever learns who is there reads nobody's repo yet. */
  begin(mode: 'learning' | 'following'): void {
    this.#isLearning = mode === 'learning'
    this.#isLive = false
    this.#refusal = undefined
    this.#named.clear()
  }

  /** The index is looked at anew: it alone says where a connection begins. */
  forget(): void {
    this.#members.clear()
    this.#seqs.clear()
  }

  learn({ did, serviceUrl, boundaries, seq }: KnownMember): void {
    this.#members.set(did, memberKey(serviceUrl, boundaries))
    this.#seqs.set(did, seq)
    this.#parts.intake.at(serviceUrl)
  }

  /**
   * Of the stream of everybody, or of one account.
   * @throws FrameError for what cannot be read, and is nobody's
   */
  take(frame: Uint8Array, { of, sentMs }: From): void {
    const message = this.#decoded(frame)
    switch (message.kind) {
      case 'commit':
      case 'status':
      case 'reset':
        // A stream of one account has nothing to say of others.
        return of === undefined || of === message.did ? this.#event(message) : undefined
      case 'enrollment':
        return of === undefined ? this.#enrollment(message) : undefined
      case 'heartbeat':
        return this.#heartbeat(message, sentMs)
      case 'info':
        return this.#info(message.name, of ?? message.did)
      case 'error':
        return this.#failed(message, of)
      case 'unknown':
        return
      default:
        unreachable(message)
    }
  }

  /** Everybody was named who is enrolled: of the others the index keeps nothing. */
  dropUnnamed(): void {
    for (const did of this.#members.keys()) if (!this.#named.has(did)) this.#left(did)
  }

  #decoded(frame: Uint8Array): StreamMessage {
    const { service } = this.#parts
    try {
      return decodeFrame(frame, service)
    } catch (error) {
      const place = error instanceof FrameError ? eventPlace(frame) : undefined
      if (!(error instanceof FrameError) || place === undefined) throw error
      return { kind: 'reset', service, ...place, refused: { error: error.message, frame } }
    }
  }

  #event(event: IndexEvent): void {
    this.#store(event)
    // What was withheld is there again, or what was there may be wrong.
    const isDue = event.kind === 'reset' || (event.kind === 'status' && !event.takendown)
    if (!isDue || this.#isLearning || !this.#members.has(event.did)) return
    this.#parts.backfills.add(event.did)
  }

  #store(event: IndexEvent): void {
    const { backfills, intake } = this.#parts
    if (!backfills.hold(event)) intake.event(event)
    if (event.seq === undefined || !this.#members.has(event.did)) return
    this.#seqs.set(event.did, event.seq)
  }

  /** Older events are gone, or the log cannot be read: what is here may be wrong. */
  #info(name: string, did: Did | undefined): void {
    if (did === undefined || !this.#members.has(did)) return
    if (name === 'OutdatedCursor') return this.#reset(did)
    if (name !== 'RepoUnavailable') return
    this.#store({ kind: 'reset', service: this.#parts.service, did, seq: 0 })
    this.#parts.backfills.addWhenQuiet(did)
  }

  #reset(did: Did): void {
    this.#event({ kind: 'reset', service: this.#parts.service, did, seq: 0 })
  }

  #enrollment(message: Extract<StreamMessage, { readonly kind: 'enrollment' }>): void {
    const { did, action, serviceUrl, boundaries } = message
    if (action === 'unenroll') return this.#left(did)
    this.#named.add(did)
    const key = memberKey(serviceUrl, boundaries)
    const known = this.#members.get(did)
    if (known !== key) {
      const enrolledAt = new Date(this.#parts.now())
      this.#members.set(did, key)
      this.#parts.intake.member({ did, serviceUrl, boundaries, enrolledAt })
    }
    // Whoever was there before us may have written more than the log still has.
    if (known === undefined && !this.#isLive) this.#reset(did)
    this.#parts.memberChanged(did)
  }

  #left(did: Did): void {
    this.#members.delete(did)
    this.#seqs.delete(did)
    this.#named.delete(did)
    this.#parts.backfills.forget(did)
    this.#parts.intake.left(did)
    this.#parts.memberChanged(did)
  }

  #heartbeat(
    message: Extract<StreamMessage, { readonly kind: 'heartbeat' }>,
    sentMs: number,
  ): void {
    if (message.isBehind) return
    this.#isLive = true
    const { backfills, intake, provenMs } = this.#parts
    backfills.hideSlow()
    // By our clock alone: those of services may be wrong.
    const atMs = Math.min(sentMs - (message.ageMs ?? 0), provenMs())
    // Of what is held back, or may come by other streams, nothing is in the index yet.
    if (backfills.isHoldingSeen || atMs === -Infinity) return
    intake.heard(atMs, () => (this.#heardMs = atMs))
  }

  /** The service was put back to an earlier state, or says what else is wrong. */
  #failed(
    { error, message }: Extract<StreamMessage, { readonly kind: 'error' }>,
    of: Did | undefined,
  ): void {
    const { service, log } = this.#parts
    log.warn('index.stream.refused', { service, refusal: error, message })
    if (of === undefined) this.#refusal = error
    if (error !== 'FutureCursor') return
    // Of everybody it may have less than the index has.
    for (const did of of === undefined ? this.#members.keys() : [of]) this.#reset(did)
  }
}

function memberKey(serviceUrl: string, boundaries: readonly string[]): string {
  return [serviceUrl, ...boundaries.toSorted()].join('\n')
}
