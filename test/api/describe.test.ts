import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { exactAnswer } from '../kit/exact.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { recordSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { documentOf } from '../remote/directory.ts'
import { type Call, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const nsids = ['zone.stratos.repo.describeRepo', 'com.atproto.repo.describeRepo'] as const
const resolve = 'zone.stratos.identity.resolveEnrollments'
let stratos: SeededStratos

beforeAll(async () => {
  // Alice writes, bob shares a with her, carol b, and dave is in no boundary. The others write
  // nothing; mallory's document claims the handle of another.
  const people = { alice: ['a', 'b'], bob: ['a'], carol: ['b', 'c'], dave: [], mallory: ['a'] }
  const others = { nameless: ['a'], gone: ['a'], lost: ['a'], huge: ['a'] }
  stratos = await SeededStratos.start({ people: { ...people, ...others } })
  const { accounts } = stratos.directory
  accounts.set(stratos.person('mallory').did, { handle: 'bob.test' })
  accounts.set(stratos.person('nameless').did, {})
  accounts.delete(stratos.person('gone').did)
  accounts.set(stratos.person('huge').did, { pds: `https://${'x'.repeat(20_000)}.test` })
})
afterAll(async () => {
  await stratos?.stop()
})

type Credential = (nsid: string) => Promise<string | undefined> | string | undefined
const developer = (name: string) => () => stratos.person(name).bearer
const token = (name: string) => (lxm: string) =>
  serviceToken(stratos.person(name), { aud: stratos.did, lxm }).then((text) => `Bearer ${text}`)

/** Nobody of them may see a record in a alone. */
const outsiders: Record<string, Credential> = {
  nobody: () => undefined,
  'a stranger': developer('stranger'),
  'a stranger with a token': token('stranger'),
  'somebody of another boundary': developer('carol'),
  'somebody of another boundary with a token': token('carol'),
  'somebody of no boundary': developer('dave'),
}

describe.each(nsids)('%s', (nsid) => {
  describe.each(Object.entries(outsiders))('to %s', (who, credential) => {
    test('answers of a repo with hidden records as of one that is not here', async () => {
      const ask = async (repo: string) =>
        exact(nsid, { params: { repo }, authorization: await credential(nsid) })
      const { did, handle } = stratos.person('alice')
      const never = stratos.person('stranger')
      const missing = (await ask(never.did)).replaceAll(never.did, did)
      expect(missing).toContain('"RepoNotFound"')
      expect(await ask(did)).toBe(missing)

      const missingByHandle = await ask(handle)
      expect(missingByHandle).toContain('"RepoNotFound"')

      const rkey = await write('alice', ['a'])
      const seen = [await ask(did), await ask(handle)]
      await remove('alice', rkey)
      expect(seen).toEqual([missing, missingByHandle])
      expect([await ask(did), await ask(handle)]).toEqual([missing, missingByHandle])
    })

    test('asks nobody about the account', async () => {
      const rkey = await write('alice', ['a'])
      // The token's own account is looked up at most once before.
      await exact(nsid, { params: { repo: 'x.test' }, authorization: await credential(nsid) })
      const before = stratos.directory.asked.length
      const repo = stratos.person('lost').did
      for (const one of [stratos.person('alice').did, repo]) {
        await exact(nsid, { params: { repo: one }, authorization: await credential(nsid) })
      }
      if (who === 'nobody') await exact(nsid, { params: { repo: 'lost.test' } })
      // Of alice the service may look up where she is by now: she has written.
      const others = stratos.directory.asked.slice(before)
      expect(others.filter((one) => one !== stratos.person('alice').did)).toEqual([])
      await remove('alice', rkey)
    })
  })

  test('shows a viewer the collection of a record that they may see', async () => {
    const rkey = await write('alice', ['a'])
    for (const credential of [developer('bob'), token('bob')]) {
      const params = { repo: stratos.person('alice').did }
      const answer = await stratos.call(nsid, { params, authorization: await credential(nsid) })
      expect(answer).toMatchObject({ status: 200, body: described('alice', [postCollection]) })
      expect(Object.keys(answer.body)).toHaveLength(5)
    }
    const params = { repo: 'Alice.test' }
    const byHandle = await stratos.callAs('bob', nsid, { params })
    expect(byHandle.body).toEqual(described('alice', [postCollection]))

    await stratos.setBoundaries('bob', ['b'])
    expectRefusal(await stratos.callAs('bob', nsid, { params }), [404, 'RepoNotFound'])
    await stratos.setBoundaries('bob', ['a'])
    expect(await stratos.callAs('bob', nsid, { params })).toMatchObject({ status: 200 })
    await remove('alice', rkey)
    expectRefusal(await stratos.callAs('bob', nsid, { params }), [404, 'RepoNotFound'])
  })

  test('shows owner and operator a repo that is empty, and one whose records all see nobody', async () => {
    const params = { repo: stratos.person('carol').did }
    const owner = { params, authorization: stratos.person('carol').bearer }
    const operator = { params, authorization: stratos.adminBasic }
    for (const call of [owner, operator]) {
      expect((await stratos.call(nsid, call)).body).toEqual(described('carol', []))
    }
    const rkey = await write('carol', ['c'])
    for (const call of [owner, operator]) {
      expect((await stratos.call(nsid, call)).body).toEqual(described('carol', [postCollection]))
    }
    await remove('carol', rkey)
  })

  test('says of a handle that leads elsewhere, or is missing, that it is not correct', async () => {
    const asked = async (name: string) => {
      const params = { repo: stratos.person(name).did }
      return await stratos.call(nsid, { params, authorization: stratos.adminBasic })
    }
    expect(await asked('mallory')).toMatchObject({
      status: 200,
      body: { handle: 'bob.test', handleIsCorrect: false },
    })
    expect(await asked('nameless')).toMatchObject({
      status: 200,
      body: { handle: 'handle.invalid', handleIsCorrect: false },
    })
  })

  test('fails where the document of the DID is gone, too large, or cannot be had now', async () => {
    const asked = async (name: string) => {
      const params = { repo: stratos.person(name).did }
      return await stratos.call(nsid, { params, authorization: stratos.adminBasic })
    }
    expectRefusal(await asked('gone'), [400, 'InvalidRequest'])
    expectRefusal(await asked('huge'), [400, 'InvalidRequest'])
    stratos.directory.broken = { status: 503 }
    const answer = await asked('lost')
    stratos.directory.broken = undefined
    expectRefusal(answer, [503, 'Overloaded'])
  })

  test('refuses what is neither a DID nor a handle', async () => {
    for (const repo of ['', 'alice', 'did:', 'at://alice.test']) {
      const answer = await stratos.callAs('alice', nsid, { params: { repo } })
      expectRefusal(answer, [400, 'InvalidRequest'])
    }
  })
})

describe('resolveEnrollments', () => {
  test.each<[string, Credential, readonly string[]]>([
    ['the account itself all boundaries', developer('alice'), ['a', 'b']],
    ['the account itself by token all boundaries', token('alice'), ['a', 'b']],
    ['the operator all boundaries', () => stratos.adminBasic, ['a', 'b']],
    ['somebody enrolled what both share', developer('bob'), ['a']],
    ['somebody enrolled by token what both share', token('carol'), ['b']],
    ['somebody of no boundary nothing', developer('dave'), []],
    ['a stranger nothing', developer('stranger'), []],
    ['a stranger by token nothing', token('stranger'), []],
    ['nobody nothing', () => undefined, []],
  ])('shows %s', async (_, credential, bare) => {
    const params = { did: stratos.person('alice').did }
    const answer = await stratos.call(resolve, { params, authorization: await credential(resolve) })
    const boundaries = bare.map((name) => stratos.boundary(name))
    expect(answer.status).toBe(200)
    expect(answer.body).toEqual({ ...params, enrolled: true, boundaries })
  })

  test('of somebody who is not enrolled is told to everybody alike', async () => {
    const { did } = stratos.person('stranger')
    for (const credential of [developer('stranger'), developer('bob'), () => undefined]) {
      const { body } = await stratos.call(resolve, {
        params: { did },
        authorization: credential(),
      })
      expect(body).toEqual({ did, enrolled: false, boundaries: [] })
    }
  })

  test('takes a DID and nothing else', async () => {
    for (const did of ['', 'alice.test', 'did:']) {
      const answer = await stratos.call(resolve, { params: { did } })
      expectRefusal(answer, [400, 'InvalidRequest'])
    }
  })
})

test('a repo whose visible records are all taken down is for others one that is not here', async () => {
  const [nsid] = nsids
  const { did } = stratos.person('alice')
  const ask = (authorization: string) => exact(nsid, { params: { repo: did }, authorization })
  const { bearer } = stratos.person('bob')
  const missing = await ask(bearer)
  expect(missing).toContain('"RepoNotFound"')
  const rkey = await write('alice', ['a'])
  const params = { repo: did, collection: postCollection, rkey }
  const { body } = await stratos.callAs('alice', 'zone.stratos.repo.getRecord', { params })
  const subject = recordSubject({ uri: textOf(body, 'uri'), cid: textOf(body, 'cid') })
  expect(await ask(bearer)).toContain('HTTP 200')
  await setTakedown(stratos, subject, { applied: true })
  expect(await ask(bearer)).toBe(missing)
  // Its owner still has a repo, and the operator sees all of it.
  expect(await ask(stratos.person('alice').bearer)).toContain('"collections":[]')
  expect(await ask(stratos.adminBasic)).toContain(`"collections":["${postCollection}"]`)
  await setTakedown(stratos, subject, { applied: false })
  expect(await ask(bearer)).toContain('HTTP 200')
  await remove('alice', rkey)
})

describe('a boundary that the configuration has lost', () => {
  let rkey: string

  beforeAll(async () => {
    rkey = await write('alice', ['b'])
    expect(await stratos.terminate()).toBe(0)
    await stratos.run({ STRATOS_ALLOWED_DOMAINS: 'a,c' })
  })
  afterAll(async () => {
    expect(await stratos.terminate()).toBe(0)
    await stratos.run()
    await remove('alice', rkey)
  })

  test.each(nsids)('leaves no trace in %s', async (nsid) => {
    const { did } = stratos.person('alice')
    const never = stratos.person('stranger').did
    for (const credential of [developer('carol'), token('carol'), developer('bob')]) {
      const ask = async (repo: string) =>
        exact(nsid, { params: { repo }, authorization: await credential(nsid) })
      expect(await ask(did)).toBe((await ask(never)).replaceAll(never, did))
    }
    const { body } = await stratos.callAs('alice', nsid, { params: { repo: did } })
    expect(body['collections']).toEqual([postCollection])
  })

  test('is in no answer of resolveEnrollments', async () => {
    const params = { did: stratos.person('alice').did }
    const answers = [
      await stratos.callAs('alice', resolve, { params }),
      await stratos.call(resolve, { params, authorization: stratos.adminBasic }),
    ]
    for (const { body } of answers) expect(body['boundaries']).toEqual([stratos.boundary('a')])
    const { body } = await stratos.callAs('carol', resolve, { params })
    expect(body['boundaries']).toEqual([])
  })
})

function described(name: string, collections: readonly string[]) {
  const { did, handle, key } = stratos.person(name)
  const didDoc = documentOf(did, { didKey: key.did(), handle })
  return { handle, did, didDoc, collections, handleIsCorrect: true }
}

/** @returns the key of a new record */
async function write(name: string, bare: readonly string[]): Promise<string> {
  const boundaries = bare.map((one) => stratos.boundary(one))
  const input = {
    repo: stratos.person(name).did,
    collection: postCollection,
    record: privatePost('a post', boundaries),
  }
  const answer = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
  expect(answer).toMatchObject({ status: 200 })
  return addressOf(textOf(answer.body, 'uri')).rkey
}

async function remove(name: string, rkey: string): Promise<void> {
  const input = { repo: stratos.person(name).did, collection: postCollection, rkey }
  const answer = await stratos.callAs(name, 'zone.stratos.repo.deleteRecord', { input })
  expect(answer.body).toHaveProperty('commit')
}

function exact(nsid: string, call: Call): Promise<string> {
  return exactAnswer(stratos.url, nsid, call)
}
