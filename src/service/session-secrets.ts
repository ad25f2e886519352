import { randomBytes } from 'node:crypto'
import { XrpcError } from '../atproto/errors.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import { sessionMs } from '../store/session.ts'
import type { SessionSecretStore, StoredSecret } from '../store/session-secret.ts'

interface Parts {
  readonly store: SessionSecretStore
  readonly now: () => number
  readonly log: Log
}

/**
 * The secrets of sessions over time: one signs, former ones count until what they signed last has
 * expired, and are erased then. A rotation ends nobody's session.
 */
export class SessionSecrets {
  readonly #parts: Parts
  readonly #changes = new Turns<'change'>()
  /** The one in use first. */
  #all: readonly StoredSecret[]

  private constructor(parts: Parts, all: readonly StoredSecret[]) {
    this.#parts = parts
    this.#all = all
  }

  /** Makes the first one where there is none. */
  static async open(parts: Parts): Promise<SessionSecrets> {
    const { store, now, log } = parts
    if ((await store.all()).length === 0) {
      const made = newSecret()
      await store.begin(made, now())
      log.info('session-secret.made', { kid: made.kid })
    }
    const secrets = new SessionSecrets(parts, await store.all())
    await secrets.eraseDue()
    return secrets
  }

  /** What new tokens are signed with. */
  get current(): { readonly kid: string; readonly secret: Uint8Array } {
    const [first] = this.#all
    assert(first?.retiredAtMs === null, 'there is always a secret in use')
    return first
  }

  /** Nothing for one that is not known, or whose time is over. */
  find(kid: string): Uint8Array | undefined {
    const found = this.#all.find((one) => one.kid === kid)
    if (found === undefined || this.#restMs(found) <= 0) return undefined
    return found.secret
  }

  /**
   * New tokens are signed with another secret from now on.
   * @returns its kid, and until when the one before counts
   * @throws XrpcError 400 TooManySecrets while as many former ones count as are kept
   */
  async rotate(): Promise<{ readonly kid: string; readonly formerUntilMs: number }> {
    return await this.#changes.run('change', async () => {
      const { store, now, log } = this.#parts
      await this.#eraseDue()
      const former = this.#all.slice(1)
      if (former.length >= formerMax) throw tooMany(Math.min(...former.map(this.#restMs)))
      const next = newSecret()
      const nowMs = now()
      try {
        await store.rotate(next, nowMs)
      } finally {
        // Also when it failed: who knows what of it was stored.
        this.#all = await store.all()
      }
      log.info('session-secret.rotated', { kid: next.kid })
      return { kid: next.kid, formerUntilMs: nowMs + sessionMs }
    })
  }

  /** Erases those whose time is over. Costs nothing while there are none. */
  async eraseDue(): Promise<void> {
    await this.#changes.run('change', () => this.#eraseDue())
  }

  async #eraseDue(): Promise<void> {
    const { store, now, log } = this.#parts
    if (this.#all.every((one) => this.#restMs(one) > 0)) return
    const kids = await store.erase(now() - sessionMs)
    this.#all = await store.all()
    log.info('session-secret.erased', { kids })
  }

  /** How long it still counts. */
  readonly #restMs = ({ retiredAtMs }: StoredSecret): number =>
    retiredAtMs === null ? Infinity : retiredAtMs + sessionMs - this.#parts.now()
}

function newSecret() {
  return { kid: randomBytes(9).toString('base64url'), secret: randomBytes(secretBytes) }
}

/** Of the hash that it keys. */
const secretBytes = 32
/** All that can have signed what still counts, and far more than anybody needs in that time. */
const formerMax = 10

function tooMany(waitMs: number): XrpcError {
  const seconds = Math.max(1, Math.ceil(waitMs / 1000))
  const message = `${formerMax} former secrets still count: rotate again in ${seconds} seconds`
  const headers = { 'retry-after': String(seconds) }
  return new XrpcError(400, 'TooManySecrets', message, { headers })
}
