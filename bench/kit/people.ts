import { join } from 'node:path'
import { type KeyAlgorithm, ServiceKey, SigningKey } from '../../src/atproto/keys.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import type { seed } from '../../test/kit/seed.ts'
import { Directory } from '../../test/remote/directory.ts'
import { type Build, ownRoot, type Service } from './service.ts'

/** The same for the same number, on every run. */
export function benchDid(index: number): Did {
  const letters = 'abcdefghijklmnopqrstuvwxyz234567'
  const digest = Buffer.from(Bun.SHA256.hash(String(index), 'hex'))
  return parseDid(
    `did:plc:${Array.from(digest.subarray(0, 24), (byte) => letters[byte % 32]).join('')}`,
  )
}

/**
 * Enrolls people, all in boundary a, by the code of the build that will serve them: its database
 * may be another than ours.
 */
export async function seedPeople(
  { dataDir, did }: Pick<Service, 'dataDir' | 'did'>,
  dids: readonly Did[],
  { root = ownRoot }: Build = {},
): Promise<void> {
  const people = dids.map((person) => ({ did: person, boundaries: [`${did}/a`] }))
  const theirs: { seed: typeof seed } = await import(join(root, 'test/kit/seed.ts'))
  await theirs.seed(dataDir, did, people)
}

type TokenKey = Pick<ServiceKey, 'did' | 'sign'>

/** People with keys of their own in a directory of their own, who make service-auth tokens. */
export class Callers implements AsyncDisposable {
  readonly #directory = new Directory()
  readonly #keys = new Map<Did, { readonly alg: KeyAlgorithm; readonly key: TokenKey }>()
  #tokens = 0

  /** For the service that is to know them. */
  get env(): Record<string, string> {
    return { STRATOS_PLC_URL: this.#directory.url, STRATOS_ALLOW_PRIVATE_NETWORK: 'true' }
  }

  get directoryUrl(): string {
    return this.#directory.url
  }

  add(did: Did, alg: KeyAlgorithm = 'ES256K'): void {
    const key = alg === 'ES256K' ? ServiceKey.generate() : SigningKey.generate()
    this.#keys.set(did, { alg, key })
    this.#directory.accounts.set(did, { didKey: key.did, pds: 'http://127.0.0.1:1' })
  }

  /** Another one on every call, good for half an hour: for longer than any bench runs. */
  token(did: Did, { aud, lxm }: { readonly aud: string; readonly lxm: string }): string {
    const { alg, key } = this.#keys.get(did) ?? {}
    if (key === undefined) throw new Error(`${did} has no key`)
    const iat = Math.floor(Date.now() / 1000)
    const jti = String(this.#tokens++)
    const signed = [
      { typ: 'JWT', alg },
      { iss: did, aud, lxm, iat, exp: iat + 1800, jti },
    ]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    return `${signed}.${Buffer.from(key.sign(Buffer.from(signed))).toString('base64url')}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]()
  }
}
