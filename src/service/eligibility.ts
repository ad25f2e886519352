import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { Admission } from '../store/admission.ts'
import type { ServiceStore } from '../store/service.ts'
import type { ExternalList } from './external-list.ts'

/** What the configuration says about who may enroll. */
export interface EligibilityRules {
  readonly enrollmentMode: 'open' | 'allowlist'
  readonly allowedDids: readonly string[]
  /** Origins. */
  readonly allowedPds: readonly string[]
  readonly allowListEnforce: 'enrollment' | 'continuous'
}

interface Parts {
  readonly store: ServiceStore
  /** Absent where none is configured, and in open mode. */
  readonly list?: ExternalList
  readonly log: Log
}

/** Who may enroll, and who of the enrolled may stay. @see protocol.md, section 4.2 */
export class Eligibility {
  readonly #rules: EligibilityRules
  readonly #dids: ReadonlySet<string>
  readonly #parts: Parts

  constructor(rules: EligibilityRules, parts: Parts) {
    this.#rules = rules
    this.#dids = new Set(rules.allowedDids)
    this.#parts = parts
  }

  /**
   * Passes who may enroll.
   * @throws XrpcError 403 EnrollmentDenied with `reason`
   */
  async check(did: Did, pdsEndpoint: string): Promise<void> {
    const { enrollmentMode, allowedPds } = this.#rules
    if (enrollmentMode === 'open' || this.#dids.has(did) || allowedPds.includes(pdsEndpoint)) return
    const { list } = this.#parts
    if (list === undefined) {
      const isClosed = this.#dids.size === 0 && allowedPds.length === 0
      throw isClosed
        ? enrollmentDenied('ServiceClosed', 'this service admits nobody: its list is empty')
        : notListed(did)
    }
    if (await list.has(did)) return
    await list.freshen()
    if (await list.has(did)) return
    throw (await list.state()) === 'read' ? notListed(did) : notListedYet(did)
  }

  /**
   * Begins to read the external list, and settles who of the enrolled may stay: the configuration
   * may be another than before. To be called before anybody is served.
   */
  async start(): Promise<void> {
    const { list } = this.#parts
    const reading = list?.start(() => this.enforce())
    // Without this everybody on a list that was never read would be turned out until it is.
    if (this.#isContinuous && (await list?.state()) === 'unread') await reading
    await this.enforce()
  }

  /**
   * Where eligibility counts continuously, turns inactive who lost it and active who has it again:
   * everybody, or the one person whose enrollment or PDS has just changed. Counts from the next
   * read and write on.
   */
  async enforce(did?: Did): Promise<void> {
    if (!this.#isContinuous) return
    const { store, log } = this.#parts
    const changed = await store.enforce(this.#admission, did)
    if (changed.inactive + changed.active > 0) log.info('enrollment.enforced', changed)
  }

  async stop(): Promise<void> {
    await this.#parts.list?.stop()
  }

  get #isContinuous(): boolean {
    return this.#rules.allowListEnforce === 'continuous'
  }

  get #admission(): Admission {
    const { enrollmentMode, allowedDids: dids, allowedPds: pds } = this.#rules
    if (enrollmentMode === 'open') return 'everybody'
    return { dids, pds, list: this.#parts.list?.id ?? null }
  }
}

export type DenialReason =
  | 'NotInAllowlist'
  | 'DidNotResolved'
  | 'PdsEndpointNotFound'
  | 'ServiceClosed'

export function enrollmentDenied(
  reason: DenialReason,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): XrpcError {
  return new XrpcError(403, 'EnrollmentDenied', message, { fields: { reason }, headers })
}

function notListed(did: Did): XrpcError {
  return enrollmentDenied('NotInAllowlist', `${did} is not on the list of this service`)
}

/** They may well be on the list: nobody is sent away for good because it cannot be read. */
function notListedYet(did: Did): XrpcError {
  const message = `the list of this service cannot be read now: if ${did} is on it, try again later`
  return enrollmentDenied('NotInAllowlist', message, { 'retry-after': String(retryAfterSeconds) })
}

const retryAfterSeconds = 60
