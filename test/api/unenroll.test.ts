import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { type Answer, type Call, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const method = 'zone.stratos.enrollment.unenroll'
let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'], carol: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

test('nobody leaves without a credential, or by one that is not theirs or not for this', async () => {
  const alice = stratos.person('alice')
  const other = await serviceToken(alice, { aud: stratos.did, lxm: 'zone.stratos.repo.getRecord' })
  const aud = { aud: stratos.did, lxm: method }
  const noJti = await serviceToken(alice, aud)
  const old = { jti: 'a', iat: Math.floor(Date.now() / 1000) - 400 }
  const stale = await serviceToken(alice, aud, { claims: old })
  const refused: [Call, Refusal][] = [
    [{}, [401, 'AuthMissing']],
    [{ authorization: `Bearer ${other}` }, [401, 'InvalidToken']],
    [{ authorization: `Bearer ${noJti}` }, [401, 'InvalidToken']],
    [{ authorization: `Bearer ${stale}` }, [401, 'ExpiredToken']],
    [{ authorization: stratos.adminBasic }, [403, 'Forbidden']],
  ]
  for (const [call, refusal] of refused) {
    await expectNoChange(stratos, refusal, () => stratos.call(method, { ...call, input: {} }))
  }
  expect(await enrolled('alice')).toBeTrue()
})

test('leaving counts at once, for reading, writing and being read', async () => {
  const uri = await post('bob')
  const rkey = uri.slice(uri.lastIndexOf('/') + 1)
  const read = { repo: stratos.person('bob').did, collection: postCollection, rkey }
  const get = 'zone.stratos.repo.getRecord'
  expect((await stratos.callAs('carol', get, { params: read })).status).toBe(200)

  expect((await leave('bob')).body).toEqual({ success: true })
  expectRefusal(await stratos.callAs('carol', get, { params: read }), [404, 'RecordNotFound'])
  expectRefusal(await stratos.callAs('bob', get, { params: read }), [404, 'RecordNotFound'])
  const input = {
    repo: read.repo,
    collection: postCollection,
    record: privatePost('hello', [stratos.boundary('a')]),
  }
  const write = await stratos.callAs('bob', 'zone.stratos.repo.createRecord', { input })
  expectRefusal(write, [403, 'NotEnrolled'])
  expect(await enrolled('bob')).toBeFalse()
  const folders = readdirSync(join(stratos.dataFolder, 'actors'), { recursive: true })
  expect(folders.filter((path) => String(path).includes(read.repo))).toEqual([])
  // Again, and by somebody who never was here.
  expect((await leave('bob')).body).toEqual({ success: true })
  expect((await leave('stranger')).body).toEqual({ success: true })
})

test('a token for leaving counts once', async () => {
  const token = await leavingToken('carol')
  const call = { authorization: `Bearer ${token}` }
  expect((await stratos.call(method, { ...call, input: {} })).status).toBe(200)
  expectRefusal(await stratos.call(method, { ...call, input: {} }), [401, 'InvalidToken'])
})

test('what was asked for with a kill in between stays done', async () => {
  await leave('alice')
  await stratos.terminate()
  await stratos.run()
  expect(await enrolled('alice')).toBeFalse()
})

async function leave(name: string): Promise<Answer> {
  const authorization = `Bearer ${await leavingToken(name)}`
  return await stratos.call(method, { authorization, input: {} })
}

async function leavingToken(name: string): Promise<string> {
  const claims = { jti: crypto.randomUUID() }
  return await serviceToken(stratos.person(name), { aud: stratos.did, lxm: method }, { claims })
}

async function enrolled(name: string): Promise<unknown> {
  const params = { did: stratos.person(name).did }
  return (await stratos.call('zone.stratos.enrollment.status', { params })).body['enrolled']
}

async function post(name: string): Promise<string> {
  const { did: repo } = stratos.person(name)
  const input = {
    repo,
    collection: postCollection,
    record: privatePost('hello', [stratos.boundary('a')]),
  }
  const { body } = await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
  return textOf(body, 'uri')
}
