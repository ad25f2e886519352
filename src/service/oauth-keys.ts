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
   * @throws XrpcError 400 TooManyKeys while sessions hold too many former ones
   */
  async rotate(): Promise<string> {
    return await this.#rotations.run('rotation', async () => {
      const { store, now, log } = this.#parts
      await dropUnused(this.#parts)
      if ((await store.former()) >= formerMax) {
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

/** Longer than a sign-in that began with the key can be on its way into the store. */
const restMs = 60 * 60_000
/** All of them are fetched by every PDS: 200 bytes each. */
const formerMax = 20
