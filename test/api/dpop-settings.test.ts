import { afterAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { AppKey, type Bent, DpopApp, pdsToken } from '../kit/dpop.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import type { Call } from '../kit/xrpc.ts'
import { Issuer } from '../remote/issuer.ts'

setDefaultTimeout(60_000)

const create = 'zone.stratos.repo.createRecord'
const list = 'zone.stratos.repo.listRecords'
const invalid: Refusal = [401, 'InvalidToken']
const nonceless: Refusal = [401, 'use_dpop_nonce']
const host = 'stratos.example.com'

const evil = await Issuer.open()
afterAll(() => evil[Symbol.asyncDispose]())

const settings: Record<string, Readonly<Record<string, string>>> = {
  'as they are': {},
  'without nonces': { STRATOS_DPOP_REQUIRE_NONCE: 'false' },
  'without development mode': { STRATOS_DEV_MODE: 'false' },
  'on the web': { STRATOS_PUBLIC_URL: `https://${host}`, STRATOS_DEV_MODE: 'false' },
  'open to all': { STRATOS_ENROLLMENT_MODE: 'open' },
}

for (const [name, env] of Object.entries(settings)) {
  describe(`with settings ${name}, in the name of alice`, () => {
    test('no token counts that somebody else made, by whatever key', async () => {
      await using stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
      const { did } = stratos.person('alice')
      const key = await AppKey.create()
      const own: Bent = { sign: (bytes) => key.sign(bytes) }
      const forged: readonly (() => Promise<string>)[] = [
        () => pdsToken(did, key),
        () => pdsToken(did, key, { header: { alg: 'ES256' }, ...own }),
        () => pdsToken(did, key, { header: { alg: 'ES256', jwk: key.jwk }, ...own }),
        () => pdsToken(did, key, { header: { alg: 'none' }, sign: () => new Uint8Array() }),
        () => pdsToken(did, key, { claims: { iss: stratos.url, aud: stratos.did } }),
        () => evil.token(did, key),
        () => evil.token(did, key, { claims: { iss: evil.url, aud: stratos.did } }),
        () => evil.token(did, key, { claims: { iss: stratos.url, aud: stratos.did } }),
        () => evil.token(did, key, { header: { jku: `${evil.url}/oauth/jwks` } }),
      ]
      const htu = (nsid: string) => ({ htu: `${publicUrl(stratos, env)}/xrpc/${nsid}` })
      for (const make of forged) {
        const app = new DpopApp(stratos, key, await make())
        await expectNoChange(stratos, invalid, () => app.call(create, post(stratos), htu(create)))
        expectRefusal(await app.call(list, listOf(stratos), htu(list)), invalid)
      }
      expect(evil.asked).toEqual([])
    })
  })
}

test('behind a proxy the public address counts, whatever the Host header says', async () => {
  const env = settings['on the web'] ?? {}
  await using stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  const key = await AppKey.create()
  const { did } = stratos.person('alice')
  const app = new DpopApp(stratos, key, await pdsToken(did, key))
  const bindHtu = `https://${host}/xrpc/zone.stratos.server.bindKey`
  const wrong = await app.bind(stratos.person('alice'), {
    aud: `did:web:${host}`,
    htu: `${stratos.url}/xrpc/zone.stratos.server.bindKey`,
  })
  expectRefusal(wrong, invalid)
  const bound = await app.bind(stratos.person('alice'), { aud: `did:web:${host}`, htu: bindHtu })
  expect(bound).toMatchObject({ status: 200 })
  const at = (origin: string) => app.call(list, listOf(stratos), { htu: `${origin}/xrpc/${list}` })
  expect(await at(`https://${host}`)).toMatchObject({ status: 200 })
  expect(await at(`https://${host}:443`)).toMatchObject({ status: 200 })
  for (const origin of [stratos.url, `http://${host}`, `https://${host}:8443`, 'https://a.test']) {
    expectRefusal(await at(origin), invalid)
  }
  for (const name of ['host', 'x-forwarded-host']) {
    const call = { ...listOf(stratos), headers: { [name]: 'evil.example' } }
    expectRefusal(await app.call(list, call, { htu: `https://evil.example/xrpc/${list}` }), invalid)
  }
})

test('where nonces may be left out, a proof still counts once, also across a restart', async () => {
  const env = { STRATOS_DPOP_REQUIRE_NONCE: 'false' }
  await using stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  const alice = await DpopApp.of(stratos, 'alice')
  // Just after the start a proof of before might be among them.
  const bare = { nonce: 'none' }
  expectRefusal(await alice.once(list, listOf(stratos), bare), nonceless)
  const ahead = { ...bare, proof: { claims: { iat: Math.floor(Date.now() / 1000) + 290 } } }
  expectRefusal(await alice.once(list, listOf(stratos), ahead), nonceless)
  // A nonce that is there must count.
  expectRefusal(await alice.once(list, listOf(stratos), { nonce: 'x' }), nonceless)
  expect(await alice.call(list, listOf(stratos))).toMatchObject({ status: 200 })
})

test('who is asked for nonces is not taken for a forger, and is asked only so often', async () => {
  const failuresPerMinute = 5
  const env = { STRATOS_AUTH_FAILURES_PER_MINUTE: `${failuresPerMinute}` }
  await using stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  const alice = await DpopApp.of(stratos, 'alice')
  const header = await alice.proof(list, {}, { nonce: 'none' })
  const statuses: number[] = []
  for (let count = 0; count < 29; count++) {
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => alice.once(list, listOf(stratos), { header })),
    )
    statuses.push(...answers.map(({ status }) => status))
  }
  expect(new Set(statuses)).toEqual(new Set([401]))
  await Promise.all(
    Array.from({ length: 100 }, () => alice.once(list, listOf(stratos), { header })),
  )
  expectRefusal(await alice.once(list, listOf(stratos), { header }), [429, 'RateLimitExceeded'])
  const answer = await alice.once(list, listOf(stratos))
  expect(answer.headers.get('dpop-nonce')).toBeString()
  expect(answer.headers.get('retry-after')).toBeString()
})

test('bad proofs use up what an address may fail', async () => {
  const env = { STRATOS_AUTH_FAILURES_PER_MINUTE: '5' }
  await using stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  const alice = await DpopApp.of(stratos, 'alice')
  for (let count = 0; count < 5; count++) {
    expectRefusal(await alice.once(list, listOf(stratos), { htm: 'PUT' }), invalid)
  }
  expectRefusal(await alice.once(list, listOf(stratos)), [429, 'RateLimitExceeded'])
})

function publicUrl(stratos: SeededStratos, env: Readonly<Record<string, string>>): string {
  return env['STRATOS_PUBLIC_URL'] ?? stratos.url
}

function listOf(stratos: SeededStratos) {
  return { params: { repo: stratos.person('alice').did, collection: postCollection } }
}

function post(stratos: SeededStratos): Call {
  const record = privatePost('forged', [stratos.boundary('a')])
  return { input: { repo: stratos.person('alice').did, collection: postCollection, record } }
}
