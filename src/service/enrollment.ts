import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import type { ServiceKey } from '../atproto/keys.ts'
import { type Did, parseRkey } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import type { OutboxEntry } from '../store/actor.ts'
import type { Enrollment, ServiceStore } from '../store/service.ts'
import { type Attestation, attest } from './attestation.ts'
import type { CallActor } from './calls.ts'
import { enrollmentCollection } from './collections.ts'
import type { Outbox } from './outbox.ts'

/** What the configuration says about membership. */
export interface EnrollmentRules {
  readonly serviceDid: string
  readonly publicUrl: string
  readonly mode: 'open' | 'allowlist'
  readonly allowedDids: readonly string[]
  readonly allowedPds: readonly string[]
  /** Qualified boundaries of this service. */
  readonly boundaries: readonly string[]
  /** Those that new people get. */
  readonly newBoundaries: readonly string[]
}

/** Who is enrolled, and the steps by which people join and change boundaries. */
export class Enrollments {
  readonly #store: ServiceStore
  readonly #call: CallActor
  readonly #outbox: Outbox
  readonly #key: ServiceKey
  readonly #log: Log
  readonly #rules: EnrollmentRules
  /** A person's changes are queued in the order in which they were decided. */
  readonly #turns = new Turns<Did>()

  constructor(
    rules: EnrollmentRules,
    parts: { store: ServiceStore; call: CallActor; outbox: Outbox; key: ServiceKey; log: Log },
  ) {
    this.#rules = rules
    this.#store = parts.store
    this.#call = parts.call
    this.#outbox = parts.outbox
    this.#key = parts.key
    this.#log = parts.log
  }

  /** The active enrollment, with those of its boundaries that the service has now. */
  async find(did: Did): Promise<Enrollment | undefined> {
    const enrollment = await this.#store.enrollment(did)
    if (enrollment === undefined || !enrollment.active) return undefined
    return this.#present(enrollment)
  }

  /**
   * Passes who may enroll.
   * @throws XrpcError 403 EnrollmentDenied with `reason`
   */
  checkEligible(did: Did, pdsEndpoint: string): void {
    const { mode, allowedDids, allowedPds } = this.#rules
    if (mode === 'open' || allowedDids.includes(did) || allowedPds.includes(pdsEndpoint)) return
    throw enrollmentDenied('NotInAllowlist', 'this service admits only accounts on its list')
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
      const { signingKey } = await this.#call(did, requestId, { kind: 'key' })
      const enrollment: Enrollment = {
        did,
        pdsEndpoint,
        signingKey,
        scope,
        rkey: enrollmentRkey(this.#rules.serviceDid),
        enrolledAt: before?.enrolledAt ?? new Date().toISOString(),
        boundaries: before?.boundaries ?? this.#rules.newBoundaries,
        active: true,
      }
      const release = await this.#outbox.hold(did)
      try {
        const outbox = [this.#recordEntry(this.#present(enrollment))]
        await this.#call(did, requestId, { kind: 'open', outbox })
        await this.#store.enroll(enrollment, person.oauthSession)
      } finally {
        release()
      }
      this.#outbox.resume(did)
      return this.#present(enrollment)
    })
  }

  /**
   * Replaces someone's boundaries; the next read and write go by the new set.
   * @throws XrpcError 404 NotEnrolled, 400 InvalidRequest for a boundary that the service lacks
   */
  async setBoundaries(did: Did, names: readonly string[], requestId: string): Promise<string[]> {
    for (const name of names) {
      if (!this.#rules.boundaries.includes(name)) {
        throw invalidRequest(`this service has no boundary ${JSON.stringify(name)}`)
      }
    }
    const boundaries = [...new Set(names)].sort()
    await this.#turns.run(did, async () => {
      if ((await this.find(did)) === undefined) {
        throw new XrpcError(404, 'NotEnrolled', `${did} is not enrolled on this service`)
      }
      await this.#store.setBoundaries(did, boundaries)
      await this.#tryQueue(did, requestId)
    })
    return boundaries
  }

  /** Queues the PDS records that were decided on and could not be queued then. */
  async queueDueRecords(requestId: string): Promise<void> {
    for (const did of await this.#store.recordsDue()) {
      await this.#turns.run(did, () => this.#tryQueue(did, requestId))
    }
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
    const record = {
      $type: enrollmentCollection,
      service: this.#rules.publicUrl,
      boundaries: enrollment.boundaries.map((value) => ({ value })),
      signingKey: enrollment.signingKey,
      attestation: this.attestation(enrollment),
      createdAt: enrollment.enrolledAt,
    }
    return {
      collection: enrollmentCollection,
      rkey: parseRkey(enrollment.rkey),
      record: JSON.stringify(record),
    }
  }
}

export type DenialReason =
  | 'NotInAllowlist'
  | 'DidNotResolved'
  | 'PdsEndpointNotFound'
  | 'ServiceClosed'

export function enrollmentDenied(reason: DenialReason, message: string): XrpcError {
  return new XrpcError(403, 'EnrollmentDenied', message, { fields: { reason } })
}

/** The service DID as a record key: `%` is not allowed there. */
function enrollmentRkey(serviceDid: string): string {
  return serviceDid.replaceAll('%3A', ':')
}
