import type { Did, Handle } from '../atproto/syntax.ts'
import { Lru } from '../lib/lru.ts'
import type { Log } from '../lib/log.ts'
import { noHandle } from '../remote/account.ts'
import { DidNotResolved, type Identities } from '../remote/identity.ts'

export interface AuthorsOptions {
  readonly identities: Identities
  readonly now: () => number
  readonly log: Log
  /** How long an answer waits for handles that are not known yet. */
  readonly waitMs?: number
}

/**
 * The handles that authors are shown by. A feed does not wait long for other people's servers: who
 * is not known by then has no handle in this answer, and one in the next. What is known goes on
 * being shown while it is looked up anew, and for a day while those servers say nothing.
 */
export class Authors {
  readonly #options: AuthorsOptions
  readonly #known = new Lru<Did, Known>(knownMax)
  /** Those who are being looked up, or will be next. */
  readonly #asked = new Map<Did, PromiseWithResolvers<void>>()
  readonly #line: Did[] = []
  #running = 0

  constructor(options: AuthorsOptions) {
    this.#options = options
  }

  /** `handle.invalid` for whom no handle is known that leads there. */
  async handlesOf(dids: ReadonlySet<Did>): Promise<ReadonlyMap<Did, string>> {
    const now = this.#options.now()
    const unknown: Promise<void>[] = []
    for (const did of dids) {
      const known = this.#recent(this.#known.get(did))
      if (known !== undefined && now < known.until) continue
      const asked = this.#ask(did)
      if (known === undefined && asked !== undefined) unknown.push(asked)
    }
    if (unknown.length > 0) await this.#atMost(Promise.all(unknown))
    const shown = (did: Did) => this.#recent(this.#known.peek(did))?.handle ?? noHandle
    return new Map([...dids].map((did) => [did, shown(did)]))
  }

  /** What was found too long ago is known no more. */
  #recent(known: Known | undefined): Known | undefined {
    if (known === undefined) return undefined
    return this.#options.now() - known.foundAt < keptMs ? known : undefined
  }

  async #atMost(asked: Promise<unknown>): Promise<void> {
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, this.#options.waitMs ?? waitMsDefault)
    try {
      await Promise.race([asked, late.promise])
    } finally {
      clearTimeout(timer)
    }
  }

  /** Undefined where the line is full. */
  #ask(did: Did): Promise<void> | undefined {
    const asked = this.#asked.get(did)
    if (asked !== undefined) return asked.promise
    if (this.#line.length >= lineMax) return undefined
    const next = Promise.withResolvers<void>()
    this.#asked.set(did, next)
    this.#line.push(did)
    this.#goOn()
    return next.promise
  }

  #goOn(): void {
    while (this.#running < lookUpsMax) {
      const did = this.#line.shift()
      if (did === undefined) return
      this.#running += 1
      void this.#lookUp(did).then(() => {
        this.#running -= 1
        this.#asked.get(did)?.resolve()
        this.#asked.delete(did)
        this.#goOn()
      })
    }
  }

  async #lookUp(did: Did): Promise<void> {
    const finding = await this.#find(did)
    const now = this.#options.now()
    const known = this.#recent(this.#known.peek(did))
    if (finding.kind === 'unknown' && known !== undefined && isStill(known, finding)) {
      this.#known.set(did, { ...known, until: now + failureMs })
      return
    }
    const isFound = finding.kind === 'found'
    const handle = isFound ? finding.handle : noHandle
    this.#known.set(did, { handle, foundAt: now, until: now + (isFound ? freshMs : failureMs) })
  }

  /** Never fails: nobody may be waiting for it any more. */
  async #find(did: Did): Promise<Finding> {
    const { identities, log } = this.#options
    try {
      const handle = await identities.handle(did)
      if (handle === undefined) return { kind: 'none' }
      const lead = await identities.lead(handle, did)
      if (lead === 'unknown') return { kind: 'unknown', named: handle }
      return lead === 'there' ? { kind: 'found', handle } : { kind: 'none' }
    } catch (error) {
      if (!(error instanceof DidNotResolved)) {
        log.error('author', { did, error })
        return { kind: 'none' }
      }
      const passing = error.failure === 'unreachable' || error.failure === 'busy'
      return passing ? { kind: 'unknown', named: undefined } : { kind: 'none' }
    }
  }
}

interface Known {
  readonly until: number
  readonly handle: string
  /** When it was last known to be so. */
  readonly foundAt: number
}

type Finding =
  | { readonly kind: 'found'; readonly handle: Handle }
  | { readonly kind: 'none' }
  /** The document names it, unless that could not be had either. */
  | { readonly kind: 'unknown'; readonly named: Handle | undefined }

function isStill({ handle }: Known, { named = handle }: { readonly named: string | undefined }) {
  return named === handle
}

/** What is behind it remembers as long; a handle changes about never. */
const freshMs = 5 * 60_000
const failureMs = 60_000
/** For a host that is down over night, and not for a handle that somebody else may have by now. */
const keptMs = 24 * 60 * 60_000
const waitMsDefault = 500
/** Fewer than `Handles` takes at once, with those of feeds: others are not told that we are busy. */
const lookUpsMax = 20
/** Authors of ten pages, after which a feed shows no handle before it makes a line longer. */
const lineMax = 1_000
/** Some 200 bytes each. */
const knownMax = 50_000
