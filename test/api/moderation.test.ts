import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { basic, type Person, SeededStratos } from '../kit/seeded.ts'
import {
  getStatus,
  recordSubject,
  repoSubject,
  setTakedown,
  updateStatus,
} from '../kit/takedown.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, type Call, fieldsOf, isFields, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const invalid: Refusal = [401, 'InvalidToken']
const forbidden: Refusal = [403, 'Forbidden']
const badRequest: Refusal = [400, 'InvalidRequest']
const notFound: Refusal = [400, 'NotFound']
const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let stratos: SeededStratos
let alice: Person
let mod: Person
/** By alice, in a. */
let post: { readonly uri: string; readonly cid: string }
/** What the moderation service was told before it was one. */
let unnamed: Answer

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a', 'b'], bob: ['a'], mod: ['a'] } })
  alice = stratos.person('alice')
  mod = stratos.person('mod')
  post = await write('alice', ['a'])
  unnamed = await stratos.call(updateStatus, { ...update(), authorization: await token(mod) })
  await stratos.terminate()
  await stratos.run({ STRATOS_MOD_SERVICE_DID: mod.did })
})
afterAll(async () => {
  await stratos?.stop()
})

type Credential = () => Promise<string> | string | undefined
const outsiders: Record<string, [Credential, Refusal]> = {
  nobody: [() => undefined, [401, 'AuthMissing']],
  'the owner of what it is about': [() => token(alice), forbidden],
  'the owner by the development bearer': [() => alice.bearer, forbidden],
  'another service': [() => token(stratos.person('stranger')), forbidden],
  'the DID of the moderation service without proof': [() => mod.bearer, forbidden],
  'the moderation service with a token for another method': [
    () => token(mod, { claims: { lxm: 'com.atproto.admin.searchAccounts' } }),
    invalid,
  ],
  'the moderation service with a token for another service': [
    () => token(mod, { claims: { aud: 'did:web:other.example.com' } }),
    invalid,
  ],
  'the moderation service with a token that is expired': [
    () => token(mod, { claims: { iat: 1, exp: 2 } }),
    [401, 'ExpiredToken'],
  ],
  'the DID of the moderation service with the key of another': [
    () => token(mod, { sign: (bytes) => alice.key.sign(bytes) }),
    invalid,
  ],
  'a part of the moderation service': [
    () => token(mod, { claims: { iss: `${mod.did}#atproto_labeler` } }),
    invalid,
  ],
  'who guesses the password': [() => basic('admin', 'x'.repeat(24)), invalid],
  'who guesses the bearer': [() => `Bearer ${'x'.repeat(24)}`, invalid],
}

describe.each(Object.entries(outsiders))('%s', (_, [credential, refusal]) => {
  test('takes nothing down and lets nothing up', async () => {
    for (const subject of [recordSubject(post), repoSubject(alice.did)]) {
      const call = async (applied: boolean) => {
        const authorization = await credential()
        return stratos.call(updateStatus, { ...update(subject, { applied }), authorization })
      }
      expectRefusal(await call(true), refusal)
      expect(await isTakendown(subject)).toBeFalse()
      await setTakedown(stratos, subject, { applied: true })
      expectRefusal(await call(false), refusal)
      expect(await isTakendown(subject)).toBeTrue()
      await setTakedown(stratos, subject, { applied: false })
    }
  })

  test('learns nothing of what is taken down', async () => {
    // A token is for one method: this is of another lxm where the credential is a token.
    const authorization = await credential()
    const answer = await stratos.call(getStatus, { params: { did: alice.did }, authorization })
    expect(answer.status).toBeOneOf([401, 403])
    expect(Object.keys(answer.body).toSorted()).toEqual(['error', 'message'])
  })
})

test('the moderation service is nobody until the operator names it', () => {
  expectRefusal(unnamed, forbidden)
})

test('a token for the one method does not do for the other', async () => {
  const ask = { params: { did: alice.did } }
  const wrong = { ...ask, authorization: await token(mod) }
  expectRefusal(await stratos.call(getStatus, wrong), invalid)
  const right = { ...ask, authorization: await token(mod, { claims: { lxm: getStatus } }) }
  expect(await stratos.call(getStatus, right)).toMatchObject({ status: 200 })
})

test('to all other methods the moderation service is a person like any other', async () => {
  const hidden = await write('alice', ['b'])
  const ask = async (lxm: string, call: Call) =>
    stratos.call(lxm, { ...call, authorization: await token(mod, { claims: { lxm } }) })
  const read = 'zone.stratos.repo.getRecord'
  expect(await ask(read, { params: addressOf(post.uri) })).toMatchObject({ status: 200 })
  const missing: Refusal = [404, 'RecordNotFound']
  expectRefusal(await ask(read, { params: addressOf(hidden.uri) }), missing)
  expectRefusal(await ask('zone.stratos.sync.getRepo', { params: { did: alice.did } }), forbidden)
  const boundaries = { input: { did: mod.did, boundaries: [stratos.boundary('b')] } }
  expectRefusal(await ask('zone.stratos.admin.setBoundaries', boundaries), forbidden)
  expectRefusal(
    await ask('zone.stratos.repo.deleteRecord', { input: addressOf(post.uri) }),
    forbidden,
  )
})

describe('refused is', () => {
  const uris: Record<string, () => string> = {
    'a repo in the form of a record': () => `at://${alice.did}`,
    'a collection': () => `at://${alice.did}/${postCollection}`,
    'a URI under a handle': () => post.uri.replace(alice.did, alice.handle),
    'a URI with a fragment': () => `${post.uri}#/text`,
    'a URI with a query': () => `${post.uri}?a=b`,
    'a URI with a slash at its end': () => `${post.uri}/`,
    'a URI of another scheme': () => post.uri.replace('at:', 'https:'),
    'a URI without a collection': () => `at://${alice.did}//x`,
    'no URI': () => '',
  }
  test.each(Object.entries(uris))('%s', async (_, uri) => {
    const subject = recordSubject({ uri: uri(), cid: post.cid })
    expectRefusal(await asAdmin(updateStatus, update(subject)), badRequest)
    expectRefusal(await asAdmin(getStatus, { params: { uri: uri() } }), badRequest)
  })

  const inputs: Record<string, () => object> = {
    'a blob': () => ({
      subject: { $type: 'com.atproto.admin.defs#repoBlobRef', did: alice.did, cid: post.cid },
    }),
    'no subject': () => ({ subject: undefined }),
    'a subject of no type': () => ({ subject: { did: alice.did } }),
    'a subject of another type': () => ({ subject: { $type: 'com.example.a#b', did: alice.did } }),
    'a type in another spelling': () => ({
      subject: { ...recordSubject(post), $type: 'com.atproto.repo.strongRef#main' },
    }),
    'a subject that is a text': () => ({ subject: alice.did }),
    'a repo under a handle': () => ({ subject: repoSubject(alice.handle) }),
    'a record without a CID': () => ({ subject: { ...recordSubject(post), cid: undefined } }),
    'a record with another kind of CID': () => ({
      subject: recordSubject({ ...post, cid: `Qm${'a'.repeat(44)}` }),
    }),
    'deactivating an account': () => ({ deactivated: { applied: true } }),
    'activating an account': () => ({ takedown: undefined, deactivated: { applied: false } }),
    'a takedown that does not say so': () => ({ takedown: { ref: 'a' } }),
    'a takedown of yes': () => ({ takedown: { applied: 'yes' } }),
    'a takedown of null': () => ({ takedown: null }),
    'a ref that is no text': () => ({ takedown: { applied: true, ref: 7 } }),
    'a ref without end': () => ({ takedown: { applied: true, ref: 'x'.repeat(1001) } }),
  }
  test.each(Object.entries(inputs))('%s', async (_, change) => {
    const { input } = update(recordSubject(post), { applied: true })
    expectRefusal(await asAdmin(updateStatus, { input: { ...input, ...change() } }), badRequest)
    for (const subject of [recordSubject(post), repoSubject(alice.did)]) {
      expect(await isTakendown(subject)).toBeFalse()
    }
  })

  const unknown: Record<string, [() => Readonly<Record<string, string>>, Refusal]> = {
    'the status of nothing': [() => ({}), badRequest],
    'the status of a blob': [() => ({ did: alice.did, blob: post.cid }), badRequest],
    'the status of no DID': [() => ({ did: alice.handle }), badRequest],
    'the status of somebody unknown': [() => ({ did: `did:plc:${'b'.repeat(24)}` }), notFound],
    'the status of somebody who is not enrolled': [
      () => ({ did: stratos.person('stranger').did }),
      notFound,
    ],
    'the status of a record that is not there': [() => ({ uri: `${post.uri}x` }), notFound],
    'the status of a record of somebody unknown': [
      () => ({ uri: `at://did:plc:${'b'.repeat(24)}/${postCollection}/x` }),
      notFound,
    ],
  }
  test.each(Object.entries(unknown))('%s', async (_, [params, refusal]) => {
    expectRefusal(await asAdmin(getStatus, { params: params() }), refusal)
  })
})

describe('the status', () => {
  test('of what is here and not taken down says so', async () => {
    const takedown = { applied: false }
    expect((await asAdmin(getStatus, { params: { did: alice.did } })).body).toEqual({
      subject: repoSubject(alice.did),
      takedown,
    })
    // As on a PDS, the URI is what counts where both are given.
    const params = { uri: post.uri, did: mod.did }
    expect((await asAdmin(getStatus, { params })).body).toEqual({
      subject: recordSubject(post),
      takedown,
    })
  })

  test.each<[string, () => object]>([
    ['record', () => recordSubject(post)],
    ['repo', () => repoSubject(alice.did)],
    ['record that is not there', () => recordSubject({ ...post, uri: `${post.uri}x` })],
    ['record of any collection', () => recordSubject(elsewhere())],
    ['repo of somebody who is not enrolled', () => repoSubject(stratos.person('stranger').did)],
  ])('of a %s is what was last set', async (_, subjectOf) => {
    const subject = subjectOf()
    const set = async (takedown: object) => {
      const { status, body } = await asAdmin(updateStatus, update(subject, takedown))
      expect({ status, body }).toEqual({ status: 200, body: { subject, takedown } })
    }
    const status = async () => (await asAdmin(getStatus, { params: naming(subject) })).body
    const before = await status()
    await set({ applied: true })
    const first = await status()
    expect(first).toEqual({ subject, takedown: { applied: true, ref: expect.any(String) } })
    // One without a name goes by its time, the first one.
    const ref = textOf(fieldsOf(first, 'takedown'), 'ref')
    expect(new Date(ref).toISOString()).toBe(ref)
    await set({ applied: true })
    expect(await status()).toEqual(first)
    await set({ applied: true, ref: 'case 7' })
    expect(await status()).toEqual({ subject, takedown: { applied: true, ref: 'case 7' } })
    // A call that says nothing of a takedown changes none.
    expect((await asAdmin(updateStatus, { input: { subject } })).body).toEqual({ subject })
    expect(await status()).toEqual({ subject, takedown: { applied: true, ref: 'case 7' } })
    for (let time = 0; time < 2; time++) await set({ applied: false })
    expect(await status()).toEqual(before)
  })

  test('of a record names its present CID, and that of the takedown where it is gone', async () => {
    const { uri, cid } = await write('alice', ['a'])
    await setTakedown(stratos, recordSubject({ uri, cid: otherCid }), { applied: true })
    const status = async () => (await asAdmin(getStatus, { params: { uri } })).body
    expect(await status()).toMatchObject({ subject: recordSubject({ uri, cid }) })
    const input = addressOf(uri)
    await stratos.callAs('alice', 'zone.stratos.repo.deleteRecord', { input })
    expect(await status()).toMatchObject({
      subject: recordSubject({ uri, cid: otherCid }),
      takedown: { applied: true },
    })
  })
})

test('the log says who did what to whom, and nothing of what was not done', async () => {
  const subject = recordSubject(await write('alice', ['a']))
  const { uri } = subject
  const takedown = (applied: boolean) => update(subject, { applied, ref: 'a secret name' })
  const lift = await asAdmin(updateStatus, takedown(false))
  const byAdmin = await asAdmin(updateStatus, takedown(true))
  const authorization = await token(mod)
  const byMod = await stratos.call(updateStatus, { ...takedown(false), authorization })
  const again = await stratos.call(updateStatus, { ...takedown(true), authorization })
  const expected = [
    { event: 'takedown.applied', subject: uri, by: 'admin', requestId: requestIdOf(byAdmin) },
    { event: 'takedown.lifted', subject: uri, by: mod.did, requestId: requestIdOf(byMod) },
    { event: 'takedown.applied', subject: uri, by: mod.did, requestId: requestIdOf(again) },
  ]
  await eventually('line', () => (stratos.log.includes(requestIdOf(again)) ? true : undefined))
  const lines = stratos.log
    .split('\n')
    .filter((line) => line.includes(uri))
    .map((line): unknown => JSON.parse(line))
  expect(lines.filter(isFields)).toMatchObject(expected)
  expect(stratos.log).not.toContain(requestIdOf(lift))
  expect(stratos.log).not.toContain('a secret name')
  expect(stratos.log).not.toContain('kept for a')
})

function update(subject: object = recordSubject(post), takedown: object = { applied: true }) {
  return { input: { subject, takedown } }
}

function asAdmin(nsid: string, call: Call): Promise<Answer> {
  return stratos.call(nsid, { ...call, authorization: stratos.adminBasic })
}

async function isTakendown(subject: object): Promise<boolean> {
  const { body } = await asAdmin(getStatus, { params: naming(subject) })
  return fieldsOf(body, 'takedown')['applied'] === true
}

function naming(subject: object): Record<string, string> {
  return 'uri' in subject
    ? { uri: String(subject.uri) }
    : { did: String(Reflect.get(subject, 'did')) }
}

/** A record of a collection that nobody here has, of somebody who is not enrolled. */
function elsewhere() {
  return { uri: `at://${stratos.person('stranger').did}/com.example.any/x`, cid: otherCid }
}

async function token(person: Person, options: TokenOptions = {}): Promise<string> {
  const made = await serviceToken(person, { aud: stratos.did, lxm: updateStatus }, options)
  return `Bearer ${made}`
}

async function write(name: string, bare: readonly string[]) {
  const { did: repo } = stratos.person(name)
  const boundaries = bare.map((one) => stratos.boundary(one))
  const record = privatePost('kept for a', boundaries)
  const input = { repo, collection: postCollection, record }
  const { body } = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

function requestIdOf({ headers }: Answer): string {
  return headers.get('x-request-id') ?? 'none'
}
