import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { AppView } from './caller.ts'

/** The AppViews that the operator lets read. @see protocol.md, section 3 */
export class AppViews {
  readonly #grants: ReadonlyMap<Did, AppView['boundaries']>
  readonly #enrollments: Enrollments
  readonly #log: Log
  /** At most as many as there are AppViews. */
  readonly #warned = new Set<Did>()

  constructor(
    grants: ReadonlyMap<Did, AppView['boundaries']>,
    { enrollments, log }: { readonly enrollments: Enrollments; readonly log: Log },
  ) {
    this.#grants = grants
    this.#enrollments = enrollments
    this.#log = log
  }

  /** Undefined for everybody who is no AppView. */
  async find(did: Did): Promise<AppView | undefined> {
    const boundaries = this.#grants.get(did)
    if (boundaries === undefined) return undefined
    await this.#warn(did)
    return { kind: 'service', did, boundaries }
  }

  /** A person under such a DID can no longer write, and would not know why. */
  async #warn(did: Did): Promise<void> {
    if (this.#warned.has(did) || (await this.#enrollments.member(did)) === undefined) return
    if (this.#warned.has(did)) return
    this.#warned.add(did)
    this.#log.warn('appview.enrolled', {
      did,
      warning:
        'this DID is enrolled and in STRATOS_ALLOWED_APPVIEWS: by service auth it is an AppView ' +
        'only, and cannot write; take it off that list, or unenroll it',
    })
  }
}
