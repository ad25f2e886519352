import { XrpcError } from '../atproto/errors.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import { ClientKeys, generateClientKey } from '../remote/client-keys.ts'
import type { OauthKeyStore } from '../store/oauth-key.ts'

interface Parts {
  readonly store: OauthKeyStore
  readonly now: () => number
  readonly log: Log
}

/**
 * Keys of the confidential OAuth client over time.
 *
 * - A PDS keeps a copy of what we publish for some ten minutes and looks at nothing newer in
 *   between: a key is therefore published one rotation before it is used.
 * - A session lives and dies with the key that it began with: a former key stays, published and
 *   usable, while a session or a sign-in under way has it.
 */
export class OauthKeys {
  readonly #parts: Parts
  readonly #rotations = new Turns<'rotation'>()
  #current: ClientKeys

  private constructor(parts: Parts, current: ClientKeys) {
    this.#parts = parts
    this.#current = current
  }

  /** Makes the first keys where there are none, and forgets former ones that nobody needs. */
  static async open(parts: Parts): Promise<OauthKeys> {
    const { store, now, log } = parts
    if ((await store.all()).length === 0) {
      const [used, next] = [await generateClientKey(), await generateClientKey()]
      await store.begin({ used, next }, now())
      log.info('oauth-key.made', { kid: used.kid, next: next.kid })
    }
    await dropUnused(parts)
    return new OauthKeys(parts, await ClientKeys.import(await store.all()))
  }

  /** Those of this moment. */
  get current(): ClientKeys {
    return this.#current
  }

  /**
   * New sign-ins use another key from now on.
   * @returns its kid
   * @throws XrpcError 400 TooManyKeys while sessions hold too many former ones, 400 KeyTooNew while
   *   PDSes may not have seen the next one
   */
  async rotate(): Promise<string> {
    return await this.#rotations.run('rotation', async () => {
      const { store, now, log } = this.#parts
      await dropUnused(this.#parts)
      const former = await store.former()
      const waitMs = (await store.nextSinceMs()) + seenMs - now()
      // The first two came at the same time: who has seen one has seen the other.
      if (former > 0 && waitMs > 0) throw tooNew(waitMs)
      if (former >= formerMax) {
        const message = `sessions still need ${formerMax} former keys: wait until some have ended`
        throw new XrpcError(400, 'TooManyKeys', message)
      }
      const next = await generateClientKey()
      await store.rotate(next, now())
      const keys = await store.all()
      this.#current = await ClientKeys.import(keys)
      const [used] = keys
      assert(used !== undefined, 'a rotation leaves a key in use')
      log.info('oauth-key.rotated', { kid: used.kid, next: next.kid })
      return used.kid
    })
  }
}

async function dropUnused({ store, now, log }: Parts): Promise<void> {
  const dropped = await store.dropUnused(now() - restMs)
  if (dropped.length > 0) log.info('oauth-key.dropped', { kids: dropped })
}

function tooNew(waitMs: number): XrpcError {
  const seconds = Math.ceil(waitMs / 1000)
  const message = `PDSes may not have seen the next key yet: rotate again in ${seconds} seconds`
  const headers = { 'retry-after': String(seconds) }
  return new XrpcError(400, 'KeyTooNew', message, { headers })
}

/** Longer than a PDS keeps its copy of our keys. */
const seenMs = 15 * 60_000
/** Longer than a sign-in that began with the key can be on its way into the store. */
const restMs = 60 * 60_000
/** All of them are fetched by every PDS: 200 bytes each. */
const formerMax = 20
