import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { Secp256k1Keypair } from '@atproto/crypto'
import { encode } from '../../src/atproto/cbor.ts'
import { verifySignature } from '../../src/atproto/keys.ts'
import { addressOf } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { getStatus, repoSubject, setTakedown, updateStatus } from '../kit/takedown.ts'
import type { TokenOptions } from '../kit/token.ts'
import { type Call, fieldsOf, textOf } from '../kit/xrpc.ts'
import { Readers } from './readers.ts'

setDefaultTimeout(60_000)

const getRecord = 'zone.stratos.repo.getRecord'
const getRepo = 'zone.stratos.sync.getRepo'
const status = 'zone.stratos.enrollment.status'
const resolveEnrollments = 'zone.stratos.identity.resolveEnrollments'
const forbidden: Refusal = [403, 'Forbidden']
const notFound: Refusal = [404, 'RecordNotFound']

let readers: Readers

beforeAll(async () => {
  readers = await Readers.start()
})
afterAll(async () => {
  await readers?.stratos.stop()
})

describe('of a membership is shown', () => {
  test.each<[string, string, readonly string[], boolean]>([
    ['all', 'alice', ['a', 'b'], true],
    ['of-each', 'alice', ['a', 'b'], true],
    ['of-a', 'alice', ['a'], false],
    ['of-b', 'alice', ['b'], false],
    ['of-c', 'alice', [], false],
    ['all', 'bob', ['a'], true],
    ['of-a', 'bob', ['a'], true],
    ['of-b', 'bob', [], false],
    ['all', 'dave', [], true],
    ['of-c', 'dave', [], true],
    // Membership is no content: a takedown does not touch it.
    ['all', 'tom', ['a', 'b'], true],
    ['erin', 'erin', ['a'], false],
  ])('to %s of %s the boundaries %p, attested: %p', async (name, who, bare, isAttested) => {
    const { did } = readers.person(who)
    const boundaries = bare.map((one) => readers.stratos.boundary(one))
    const { body } = await readers.ask(name, status, { params: { did } })
    expect(body).toMatchObject({ did, enrolled: true, active: true })
    expect(body['boundaries']).toEqual(boundaries.map((value) => ({ value })))
    expect('attestation' in body).toBe(isAttested)
    if (isAttested) expectAttested(body, { did, boundaries })
    const short = await readers.ask(name, resolveEnrollments, { params: { did } })
    expect(short.body).toEqual({ did, enrolled: true, boundaries })
  })

  test('nothing but that it is inactive, where it is', async () => {
    const { did } = readers.person('ivy')
    for (const name of ['all', 'of-a']) {
      const { body } = await readers.ask(name, status, { params: { did } })
      expect(body).toMatchObject({ did, enrolled: true, active: false })
      expect(body).not.toContainAnyKeys(['boundaries', 'attestation'])
      const short = await readers.ask(name, resolveEnrollments, { params: { did } })
      expect(short.body).toEqual({ did, enrolled: true, boundaries: [] })
    }
  })
})

describe('no AppView is', () => {
  const call = (): Call => ({ params: addressOf(readers.ref('in-a').uri) })

  test('whoever forges its token', async () => {
    const stranger = await Secp256k1Keypair.create()
    const past = Math.floor(Date.now() / 1000) - 120
    const forged: [TokenOptions, Refusal][] = [
      [{ sign: (bytes) => stranger.sign(bytes) }, [401, 'InvalidToken']],
      [{ claims: { iss: `${readers.person('all').did}#bsky_appview` } }, [401, 'InvalidToken']],
      [{ claims: { aud: 'did:web:elsewhere.example' } }, [401, 'InvalidToken']],
      [{ claims: { lxm: getRepo } }, [401, 'InvalidToken']],
      [{ claims: { lxm: undefined } }, [401, 'InvalidToken']],
      [{ claims: { exp: past } }, [401, 'ExpiredToken']],
      [{ header: { alg: 'none' }, sign: () => new Uint8Array() }, [401, 'InvalidToken']],
    ]
    for (const [options, refusal] of forged) {
      const authorization = await readers.token('all', getRecord, options)
      expectRefusal(await readers.stratos.call(getRecord, { ...call(), authorization }), refusal)
    }
    const honest = await readers.token('stranger', getRecord, {
      claims: { iss: readers.person('all').did },
    })
    const claimed = await readers.stratos.call(getRecord, { ...call(), authorization: honest })
    expectRefusal(claimed, [401, 'InvalidToken'])
  })

  test('anybody who is not on the list', async () => {
    await readers.expectMissing('stranger', getRecord, addressOf(readers.ref('in-a').uri))
    const { did } = readers.person('alice')
    expectRefusal(await readers.ask('stranger', getRepo, { params: { did } }), forbidden)
    expect((await readers.ask('stranger', status, { params: { did } })).body).not.toContainAnyKeys([
      'boundaries',
      'attestation',
    ])
  })

  test('whoever names one in development', async () => {
    const authorization = `Bearer ${readers.person('all').did}`
    expectRefusal(await readers.stratos.call(getRecord, { ...call(), authorization }), notFound)
    const params = { did: readers.person('alice').did }
    expectRefusal(await readers.stratos.call(getRepo, { params, authorization }), forbidden)
    const { body } = await readers.stratos.call(status, { params, authorization })
    expect(body).not.toContainAnyKeys(['boundaries', 'attestation'])
  })
})

test('an AppView that is the moderation service moderates, and is an AppView elsewhere', async () => {
  const { did } = readers.person('bob')
  const input = { subject: repoSubject(did), takedown: { applied: true } }
  expect(await readers.ask('moderator', updateStatus, { input })).toMatchObject({ status: 200 })
  const { body } = await readers.ask('moderator', getStatus, { params: { did } })
  expect(fieldsOf(body, 'takedown')).toMatchObject({ applied: true })
  await setTakedown(readers.stratos, repoSubject(did), { applied: false })
  const params = { did: readers.person('dave').did }
  expect((await readers.ask('moderator', status, { params })).body).toHaveProperty('attestation')
})

test('an AppView that is enrolled does not find its own records elsewhere, and is warned of once', async () => {
  const params = addressOf(readers.ref('of-erin').uri)
  expectRefusal(await readers.ask('erin', getRecord, { params }), notFound)
  expect(await readers.ask('of-b', getRecord, { params })).toMatchObject({ status: 200 })
  const warnings = readers.stratos.log
    .split('\n')
    .filter((line) => line.includes('"appview.enrolled"'))
  expect(warnings).toHaveLength(1)
  expect(JSON.parse(warnings[0] ?? '')).toMatchObject({
    level: 'warn',
    did: readers.person('erin').did,
  })
})

test('what an AppView may read follows the setting, and ends with it', async () => {
  const params = addressOf(readers.ref('in-b').uri)
  await readers.stratos.terminate()
  await readers.stratos.run({ STRATOS_ALLOWED_APPVIEWS: `${readers.person('of-a').did}=b` })
  expect(await readers.ask('of-a', getRecord, { params })).toMatchObject({ status: 200 })
  expectRefusal(await readers.ask('all', getRecord, { params }), notFound)
  expectRefusal(await readers.ask('of-b', getRecord, { params }), notFound)
  // A person again, who reads their own.
  const own = addressOf(readers.ref('of-erin').uri)
  expect(await readers.ask('erin', getRecord, { params: own })).toMatchObject({ status: 200 })
})

function expectAttested(
  body: Readonly<Record<string, unknown>>,
  { did, boundaries }: { readonly did: string; readonly boundaries: readonly string[] },
): void {
  const attestation = fieldsOf(body, 'attestation')
  const sig = Buffer.from(textOf(fieldsOf(attestation, 'sig'), '$bytes'), 'base64')
  const signingKey = textOf(body, 'signingKey')
  const bytes = encode({ boundaries: [...boundaries].sort(), did, signingKey })
  const didKey = textOf(attestation, 'signingKey')
  expect(verifySignature({ didKey, bytes, sig })).toBe(true)
}
