import { expect, test } from 'bun:test'

import { DpopNonces } from '../../src/api/dpop-nonce.ts'
import { DpopProofs } from '../../src/api/dpop-proof.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { AppKey, dpopProof } from '../kit/dpop.ts'
import { failureOf } from '../kit/wait.ts'
import { Clock } from '../remote/directory.ts'

const url = 'https://stratos.test/xrpc/com.example.method'
const secret = Buffer.alloc(32, 7)
const token = 'the token'
const ath = Bun.SHA256.hash(token, 'base64url')
const did = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const key = await AppKey.create()
const minuteMs = 60_000

test('without a nonce, a proof counts when it cannot be of a time before the start', async () => {
  const { clock, use } = started()
  for (const minutes of [0, 1, 4]) {
    clock.ms += minutes * minuteMs
    expect(await use({})).toBe('use_dpop_nonce')
  }
  // All that a process before this one took was dated five minutes ahead at most.
  clock.ms += 1000
  expect(await use({ iat: clock.ms / 1000 })).toBeUndefined()
  expect(await use({ iat: clock.ms / 1000 - 2 })).toBe('use_dpop_nonce')
})

test('it counts once for as long as its time would do', async () => {
  const { clock, use } = started()
  clock.ms += 20 * minuteMs
  const jti = 'a'
  const iat = clock.ms / 1000 + 300
  expect(await use({ iat, jti })).toBeUndefined()
  clock.ms += 10 * minuteMs
  expect(await use({ iat, jti })).toBe('InvalidToken')
  clock.ms += 1
  expect(await use({ iat, jti })).toBe('InvalidToken')
})

test('a nonce that is there must count, also where it is not asked for', async () => {
  const { clock, use, nonces } = started()
  clock.ms += 20 * minuteMs
  const { current } = nonces
  expect(await use({ nonce: current })).toBeUndefined()
  expect(await use({ nonce: 'x' })).toBe('use_dpop_nonce')
  clock.ms += 4 * minuteMs
  expect(await use({ nonce: current })).toBe('use_dpop_nonce')
})

test('with a nonce, it counts once for as long as the nonce does', async () => {
  const { clock, use, nonces } = started()
  clock.ms += 20 * minuteMs
  const nonce = nonces.current
  const end = nonces.expiresAtMs(nonce) ?? 0
  const proof = { nonce, jti: 'a', iat: clock.ms / 1000 }
  expect(await use(proof)).toBeUndefined()
  clock.ms = end - 1
  expect(await use(proof)).toBe('InvalidToken')
  clock.ms = end
  expect(await use(proof)).toBe('use_dpop_nonce')
})

test('a proof that expires while its token is looked up counts no more', async () => {
  const { clock, use, nonces } = started()
  clock.ms += 20 * minuteMs
  const nonce = nonces.current
  const end = nonces.expiresAtMs(nonce) ?? 0
  clock.ms = end - 1
  const proof = { nonce, jti: 'a', iat: clock.ms / 1000 }
  const meanwhile = () => {
    clock.ms += 1
  }
  expect(await use(proof, { meanwhile })).toBe('use_dpop_nonce')
})

test('the same jti by another key is another proof', async () => {
  const { clock, use } = started()
  clock.ms += 20 * minuteMs
  expect(await use({ jti: 'a' })).toBeUndefined()
  expect(await use({ jti: 'a' }, { by: await AppKey.create() })).toBeUndefined()
})

test('a proof that does not hold uses up nobody’s', async () => {
  const { clock, use } = started()
  clock.ms += 20 * minuteMs
  const other = await AppKey.create()
  expect(await use({ jti: 'a' }, { sign: (bytes) => other.sign(bytes) })).toBe('InvalidToken')
  expect(await use({ jti: 'a' })).toBeUndefined()
})

interface Using {
  readonly by?: AppKey
  readonly sign?: (bytes: Uint8Array) => Promise<Uint8Array>
  /** Happens between the check of the proof and its use. */
  readonly meanwhile?: () => void
}

/** A service that has just started, and does not ask for nonces. */
function started() {
  const clock = new Clock()
  const nonces = new DpopNonces({ secret, now: clock.now })
  const origins = new Set(['https://stratos.test'])
  const proofs = new DpopProofs({ origins, nonces, requireNonce: false, now: clock.now })
  /** @returns the name of the refusal */
  const use = async (
    claims: Readonly<Record<string, unknown>>,
    {
      by = key,
      sign = (bytes: Uint8Array) => by.sign(bytes),
      meanwhile = () => undefined,
    }: Using = {},
  ): Promise<unknown> => {
    const made = { claims: { iat: clock.ms / 1000, ...claims }, sign }
    const dpop = await dpopProof(by, { htm: 'GET', htu: url, token, nonce: undefined }, made)
    const request = new Request(url, { headers: { dpop } })
    const using = Promise.try(() => {
      const proof = proofs.check(request, { header: 'dpop', ath })
      meanwhile()
      proofs.take(proof, { did, isMember: true })
    })
    return Object(await failureOf(using)).error
  }
  return { clock, nonces, use }
}
