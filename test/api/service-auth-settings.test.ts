import { Secp256k1Keypair } from '@atproto/crypto'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { parseDid } from '../../src/atproto/syntax.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, expectRefusal, type Refusal } from '../kit/refusal.ts'
import { type Person, SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { xrpcResponse } from '../kit/xrpc.ts'
import { documentOf } from '../remote/directory.ts'

setDefaultTimeout(60_000)

const invalid: Refusal = [401, 'InvalidToken']
const listRecords = 'zone.stratos.repo.listRecords'
const createRecord = 'zone.stratos.repo.createRecord'
const key = await Secp256k1Keypair.create()

/** An AppView under a did:web, with its own host. */
const host = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch: (request) =>
    new URL(request.url).pathname === '/.well-known/did.json'
      ? Response.json(documentOf(did, { didKey: key.did() }))
      : new Response(null, { status: 404 }),
})
const did = parseDid(`did:web:localhost%3A${host.port}`)
const appView: Person = { did, handle: '', key, bearer: `Bearer ${did}` }

afterAll(async () => {
  await host.stop(true)
})

describe('where each service-auth token counts once', () => {
  let stratos: SeededStratos

  beforeAll(async () => {
    const env = { STRATOS_SERVICE_AUTH_SINGLE_USE: 'true', STRATOS_ALLOWED_APPVIEWS: did }
    stratos = await SeededStratos.start({ people: { alice: ['a'] }, env })
  })
  afterAll(async () => {
    await stratos?.stop()
  })

  const list = () => ({ repo: stratos.person('alice').did, collection: postCollection })
  const token = async (person: Person, lxm: string, claims: object = {}) => {
    const made = { jti: crypto.randomUUID(), ...claims }
    return `Bearer ${await serviceToken(person, { aud: stratos.did, lxm }, { claims: made })}`
  }

  test('a query takes none twice, be it of a person or an AppView', async () => {
    for (const person of [stratos.person('alice'), appView]) {
      const call = { params: list(), authorization: await token(person, listRecords) }
      expect(await stratos.call(listRecords, call)).toMatchObject({ status: 200 })
      expectRefusal(await stratos.call(listRecords, call), invalid)
    }
  })

  test('HEAD uses a token up as GET does', async () => {
    const authorization = await token(appView, listRecords)
    const url = new URL(
      `/xrpc/${listRecords}?${new URLSearchParams(list()).toString()}`,
      stratos.url,
    )
    const head = await fetch(url, { method: 'HEAD', headers: { authorization } })
    expect(head.status).toBe(200)
    expectRefusal(await stratos.call(listRecords, { params: list(), authorization }), invalid)
  })

  test('a write takes none twice, and the second changes nothing', async () => {
    const record = privatePost('a post', [stratos.boundary('a')])
    const input = { ...list(), record }
    const authorization = await token(stratos.person('alice'), createRecord)
    const write = () => stratos.call(createRecord, { input, authorization })
    expect(await write()).toMatchObject({ status: 200 })
    await expectNoChange(stratos, invalid, write)
  })

  test.each<[string, () => object, Refusal]>([
    ['without a jti', () => ({ jti: undefined }), invalid],
    ['without iat', () => ({ iat: undefined }), invalid],
    [
      'older than five minutes',
      () => ({ iat: Math.floor(Date.now() / 1000) - 310 }),
      [401, 'ExpiredToken'],
    ],
  ])('a token %s opens nothing', async (_, claims, refusal) => {
    for (const person of [stratos.person('alice'), appView]) {
      const authorization = await token(person, listRecords, claims())
      expectRefusal(await stratos.call(listRecords, { params: list(), authorization }), refusal)
    }
  })

  test('other credentials count as often as they come', async () => {
    for (const authorization of [stratos.person('alice').bearer, stratos.adminBasic]) {
      for (let count = 0; count < 2; count++) {
        const response = await xrpcResponse(stratos.url, listRecords, {
          params: list(),
          authorization,
        })
        expect(response.status).toBe(200)
        await response.body?.cancel()
      }
    }
  })

  test('the log of the start names what verifies signatures', async () => {
    const line = await eventually('start', () =>
      stratos.log.split('\n').find((one) => one.includes('"event":"started"')),
    )
    expect(JSON.parse(line)).toMatchObject({
      verifiers: { ES256K: expect.stringMatching(/^(libsecp256k1|@noble\/curves)$/) },
    })
  })
})
