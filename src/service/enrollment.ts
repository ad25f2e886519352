import { enrollmentCollection, enrollmentRkey } from '../atproto/enrollment.ts'
import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import type { ServiceKey } from '../atproto/keys.ts'
import { type Did, parseRkey } from '../atproto/syntax.ts'
import { nextTid } from '../atproto/tid.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import type { Budget, OutboxEntry } from '../store/actor-outbox.ts'
import type { DepartureStore, RepoNumbers } from '../store/departure.ts'
import type { Enrollment, ServiceStore } from '../store/service.ts'
import { type Attestation, attest } from './attestation.ts'
import type { BlobKeeper } from './blob-keeper.ts'
import { boundariesOfPersonMax } from './boundary.ts'
import type { ActorAnswers, CallActor } from './calls.ts'
import type { Outbox } from './outbox.ts'
import { nextSeq } from './write.ts'

/** What the configuration says about membership. */
export interface EnrollmentRules {
  readonly serviceDid: string
  readonly publicUrl: string
  /** Qualified boundaries of this service. */
  readonly boundaries: readonly string[]
  /** Those that new people get. */
  readonly newBoundaries: readonly string[]
  /** Whether the PDS record names boundaries. */
  readonly publishBoundaries: boolean
}

interface Parts {
  readonly store: ServiceStore
  readonly departures: DepartureStore
  /** Bytes of those who leave are removed. */
  readonly blobs: Pick<BlobKeeper, 'erase'>
  readonly call: CallActor
  readonly outbox: Outbox
  readonly key: ServiceKey
  readonly log: Log
}

/** Who is enrolled, and the steps by which people join and change boundaries. */
export class Enrollments {
  readonly #store: ServiceStore
  readonly #departures: DepartureStore
  readonly #blobs: Parts['blobs']
  readonly #call: CallActor
  readonly #outbox: Outbox
  readonly #key: ServiceKey
  readonly #log: Log
  readonly #rules: EnrollmentRules
  /** A person's changes are queued in the order in which they were decided. */
  readonly #turns = new Turns<Did>()

  constructor(rules: EnrollmentRules, parts: Parts) {
    this.#rules = rules
    this.#store = parts.store
    this.#departures = parts.departures
    this.#blobs = parts.blobs
    this.#call = parts.call
    this.#outbox = parts.outbox
    this.#key = parts.key
    this.#log = parts.log
  }

  /** Qualified boundaries of this service. */
  get boundaries(): readonly string[] {
    return this.#rules.boundaries
  }

  /** The active enrollment, with those of its boundaries that the service has now. */
  async find(did: Did): Promise<Enrollment | undefined> {
    const enrollment = await this.member(did)
    return enrollment?.active === true ? enrollment : undefined
  }

  /** The enrollment whether active or not: for the person themselves, and the operator. */
  async member(did: Did): Promise<Enrollment | undefined> {
    const enrollment = await this.#store.enrollment(did)
    return enrollment === undefined ? undefined : this.#present(enrollment)
  }

  /**
   * Key, repo and outbox row first, all of them found again by a second try; last and at once the
   * OAuth session and the row that makes the person enrolled.
   */
  async enroll(person: {
    readonly did: Did
    readonly pdsEndpoint: string
    readonly scope: string
    readonly oauthSession: string
    readonly requestId: string
  }): Promise<Enrollment> {
    const { did, pdsEndpoint, scope, requestId } = person
    return await this.#turns.run(did, async () => {
      const before = await this.#store.enrollment(did)
      if (before !== undefined) await this.#checkRepo(did, requestId)
      const back = await this.#comeBack(did, requestId)
      const { signingKey } = await this.#call(did, requestId, { kind: 'key' })
      const enrollment: Enrollment = {
        did,
        pdsEndpoint,
        signingKey,
        scope,
        rkey: enrollmentRkey(this.#rules.serviceDid),
        enrolledAt: before?.enrolledAt ?? new Date().toISOString(),
        boundaries: before?.boundaries ?? this.#rules.newBoundaries.toSorted(),
        active: true,
      }
      const release = await this.#outbox.hold(did)
      try {
        const record = this.#recordEntry(this.#present(enrollment))
        const outbox = withRecord(record, back.outbox)
        const { after, budget } = back
        await this.#call(did, requestId, { kind: 'open', outbox, after, budget })
        await this.#store.enroll(enrollment, person.oauthSession)
      } finally {
        release()
      }
      this.#outbox.resume(did)
      return this.#present(enrollment)
    })
  }

  /**
   * A repo that was lost is not replaced by a new one: that would have another key, and numbers that
   * its readers have seen before. Whoever gives it up leaves, and comes back above all its numbers.
   * @throws XrpcError 503 RepoUnavailable
   */
  async #checkRepo(did: Did, requestId: string): Promise<void> {
    try {
      await this.#call(did, requestId, { kind: 'outbox', limit: 1 })
    } catch (error) {
      if (!isRepoMissing(error)) throw error
      const advice = 'restore the folder of this account from a backup, or let the person leave'
      this.#log.error('enrollment.repo.missing', { did, requestId, advice })
      const message = 'your repo is not to be found on this service now: ask its operator'
      throw new XrpcError(503, 'RepoUnavailable', message)
    }
  }

  /**
   * Replaces someone's boundaries; the next read and write go by the new set.
   * @returns those that the service has
   * @throws XrpcError 404 NotEnrolled, 400 InvalidRequest for a boundary that the service lacks
   */
  async setBoundaries(
    did: Did,
    names: readonly string[],
    requestId: string,
  ): Promise<readonly string[]> {
    for (const name of names) this.#checkName(name)
    return await this.#change(did, requestId, () => names)
  }

  /** Adds one to what is stored, as `setBoundaries` otherwise. */
  async addBoundary({ did, boundary, requestId }: BoundaryChange): Promise<readonly string[]> {
    this.#checkName(boundary)
    return await this.#change(did, requestId, (stored) => [...stored, boundary])
  }

  /** Takes one from what is stored, as `setBoundaries` otherwise. */
  async removeBoundary({ did, boundary, requestId }: BoundaryChange): Promise<readonly string[]> {
    this.#checkName(boundary)
    const next = (stored: readonly string[]) => stored.filter((name) => name !== boundary)
    return await this.#change(did, requestId, next)
  }

  /**
   * Ends a membership: at once for everybody who reads or writes, then for data and key, and in the
   * background on the PDS. Whoever is not enrolled has left already.
   */
  async unenroll(did: Did, requestId: string): Promise<void> {
    await this.#turns.run(did, async () => {
      if ((await this.#store.enrollment(did)) !== undefined) await this.#leave(did, requestId)
      await this.#tryErase(did, requestId)
    })
    this.#outbox.resume(did)
  }

  async #leave(did: Did, requestId: string): Promise<void> {
    const release = await this.#outbox.hold(did)
    try {
      const { numbers, keys, budget } = await this.#close(did, requestId)
      try {
        await this.#store.leave({ did, numbers, keys, budget, nowMs: Date.now() })
      } catch (error) {
        await this.#call(did, requestId, { kind: 'stay' })
        throw error
      }
      this.#log.info('enrollment.ended', { did, requestId, keys: keys.length })
    } finally {
      release()
    }
  }

  /** Whoever wants to leave can, also when the repo was lost: then with numbers above all it had. */
  async #close(did: Did, requestId: string): Promise<ActorAnswers['leave']> {
    try {
      return await this.#call(did, requestId, { kind: 'leave' })
    } catch (error) {
      if (!isRepoMissing(error)) throw error
      this.#log.error('departure.repo.missing', { did, requestId })
      const nowMs = Date.now()
      const rkey = parseRkey(enrollmentRkey(this.#rules.serviceDid))
      const rev = nextTid({ nowMs, clockId: 0 })
      return {
        numbers: { seq: nextSeq(rev), rev },
        keys: [{ collection: enrollmentCollection, rkey, pdsCid: null }],
      }
    }
  }

  /** Tried again in the background where it fails: the person is out either way. */
  async #tryErase(did: Did, requestId: string): Promise<void> {
    try {
      await this.#erase(did, requestId)
    } catch (error) {
      this.#log.error('departure.not-erased', { did, requestId, error })
    }
  }

  async #erase(did: Did, requestId: string): Promise<void> {
    if ((await this.#departures.departure(did))?.erased !== false) return
    await this.#call(did, requestId, { kind: 'erase' })
    await this.#blobs.erase(did)
    await this.#departures.markErased(did)
    this.#log.info('departure.erased', { did, requestId })
  }

  /** Erases data and keys that could not be erased when their owners left. */
  async eraseDue(requestId: string, stopped = () => false): Promise<void> {
    for (const did of await this.#departures.unerased()) {
      if (stopped()) return
      await this.inTurn(did, () => this.#tryErase(did, requestId))
      this.#outbox.resume(did)
    }
  }

  /** Runs a task while the person neither joins nor leaves nor changes boundaries. */
  async inTurn(did: Did, task: () => Promise<void>): Promise<void> {
    await this.#turns.run(did, task)
  }

  /**
   * What somebody who was here before takes up again: the numbers of the repo, and of a departure
   * under way what is left of its budget and the keys on the PDS that it has not dealt with yet.
   */
  async #comeBack(did: Did, requestId: string): Promise<Return> {
    await this.#erase(did, requestId)
    const keys = await this.#departures.keys(did)
    return {
      after: await this.#departures.departed(did),
      budget: await this.#departures.budget(did),
      outbox: keys.map(({ collection, rkey, pdsCid }) => {
        return { collection, rkey, pdsCid, record: null }
      }),
    }
  }

  /** Queues the PDS records that were decided on and could not be queued then. */
  async queueDueRecords(requestId: string, stopped = () => false): Promise<void> {
    const due = await this.#store.recordsDue()
    for (const [index, did] of due.entries()) {
      if (stopped()) return
      if (index % shownEvery === shownEvery - 1) {
        this.#log.info('enrollment.records.queued', { done: index + 1, all: due.length })
      }
      await this.#turns.run(did, () => this.#tryQueue(did, requestId))
    }
  }

  #checkName(name: string): void {
    if (this.#rules.boundaries.includes(name)) return
    throw invalidRequest(`this service has no boundary ${JSON.stringify(name)}`)
  }

  /**
   * Decides and stores a set in the person's turn: of two changes at once none is lost. A change
   * that changes nothing writes nothing, here or on the PDS.
   * @param next the new set from what is stored, names that the service lacks included
   */
  async #change(
    did: Did,
    requestId: string,
    next: (stored: readonly string[]) => readonly string[],
  ): Promise<readonly string[]> {
    return await this.#turns.run(did, async () => {
      const enrollment = await this.#store.enrollment(did)
      if (enrollment === undefined) throw notEnrolled(did)
      const { boundaries: stored } = enrollment
      const boundaries = [...new Set(next(stored))].sort()
      if (boundaries.length > Math.max(boundariesOfPersonMax, stored.length)) {
        throw invalidRequest(
          `a person is in at most ${boundariesOfPersonMax} boundaries, ` +
            'those that the service no longer has included; set replaces all of them',
        )
      }
      if (!Bun.deepEquals(boundaries, stored)) {
        await this.#store.setBoundaries(did, boundaries)
        await this.#tryQueue(did, requestId)
      }
      return this.#present({ ...enrollment, boundaries }).boundaries
    })
  }

  attestation(enrollment: Enrollment): Attestation {
    const { did, signingKey, boundaries } = enrollment
    return attest({ did, signingKey, boundaries }, this.#key)
  }

  /** The change itself is stored and counts; its row says that the PDS record is due. */
  async #tryQueue(did: Did, requestId: string): Promise<void> {
    try {
      await this.#queueRecord(did, requestId)
    } catch (error) {
      this.#log.error('enrollment.record.not-queued', { did, requestId, error })
    }
  }

  async #queueRecord(did: Did, requestId: string): Promise<void> {
    const enrollment = await this.find(did)
    if (enrollment === undefined) return
    const release = await this.#outbox.hold(did)
    try {
      const outbox = [this.#recordEntry(enrollment)]
      await this.#call(did, requestId, { kind: 'queue', outbox })
      await this.#store.recordQueued(did)
    } finally {
      release()
    }
  }

  /** Without the boundaries that the service no longer has; the row keeps those. */
  #present(enrollment: Enrollment): Enrollment {
    const boundaries = enrollment.boundaries.filter((name) => this.#rules.boundaries.includes(name))
    return { ...enrollment, boundaries }
  }

  #recordEntry(enrollment: Enrollment): OutboxEntry {
    const { publishBoundaries } = this.#rules
    const boundaries = publishBoundaries ? enrollment.boundaries : []
    const record = {
      $type: enrollmentCollection,
      service: this.#rules.publicUrl,
      ...(publishBoundaries ? { boundaries: boundaries.map((value) => ({ value })) } : {}),
      signingKey: enrollment.signingKey,
      attestation: this.attestation({ ...enrollment, boundaries }),
      createdAt: enrollment.enrolledAt,
    }
    return {
      collection: enrollmentCollection,
      rkey: parseRkey(enrollment.rkey),
      record: JSON.stringify(record),
    }
  }
}

interface BoundaryChange {
  readonly did: Did
  /** Qualified. */
  readonly boundary: string
  readonly requestId: string
}

interface Return {
  readonly after: RepoNumbers | undefined
  readonly budget: Budget | undefined
  readonly outbox: readonly OutboxEntry[]
}

/** After another configuration the records of everybody may be due. */
const shownEvery = 1_000

/** The record first, over what a departure left at its key; then what that left elsewhere. */
function withRecord(record: OutboxEntry, left: readonly OutboxEntry[]): OutboxEntry[] {
  const isAtKey = ({ collection, rkey }: OutboxEntry) =>
    collection === record.collection && rkey === record.rkey
  const pdsCid = left.find(isAtKey)?.pdsCid ?? null
  return [{ ...record, pdsCid }, ...left.filter((entry) => !isAtKey(entry))]
}

function notEnrolled(did: Did): XrpcError {
  return new XrpcError(404, 'NotEnrolled', `${did} is not enrolled on this service`)
}

function isRepoMissing(error: unknown): boolean {
  return error instanceof XrpcError && error.error === 'RepoNotFound'
}
