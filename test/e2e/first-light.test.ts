import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { verifySignature } from '@atproto/crypto'
import { verifyRepoCar } from '@atproto/repo'
import { encode } from '@ipld/dag-cbor'

import { enrolled } from '../kit/enroll.ts'
import { type Account, Network, type PublicRecord } from '../kit/network.ts'
import {
  addressOf,
  enrollmentCollection,
  postCollection,
  privatePost,
  textsOf,
} from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const getRecord = 'zone.stratos.repo.getRecord'
const listRecords = 'zone.stratos.repo.listRecords'
const secret = 'the launch is on tuesday'

let network: Network
let stratos: Stratos
let alice: Account
let bob: Account
let carol: Account
let uri: string

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering', 'design'] })
  alice = await network.createAccount('alice')
  bob = await network.createAccount('bob')
  carol = await network.createAccount('carol')
  for (const account of [alice, bob, carol]) await enrolled(stratos, account)
  await stratos.setBoundaries(alice.did, ['engineering'])
  await stratos.setBoundaries(bob.did, ['engineering'])
  await stratos.setBoundaries(carol.did, ['design'])

  const written = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', {
    input: {
      repo: alice.did,
      collection: postCollection,
      record: privatePost(secret, [stratos.boundary('engineering')]),
    },
  })
  expect(written).toMatchObject({ status: 200 })
  uri = textOf(written.body, 'uri')
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

describe('reading', () => {
  test('a stranger gets what a missing record gets', async () => {
    const stranger = await network.createAccount('stranger')
    await expectHidden((rkey) =>
      stratos.callAs(stranger, getRecord, { params: { ...addressOf(uri), rkey } }),
    )
  })

  test('an anonymous caller gets what a missing record gets', async () => {
    await expectHidden((rkey) => stratos.call(getRecord, { params: { ...addressOf(uri), rkey } }))
  })

  test('an enrolled person of another boundary gets what a missing record gets', async () => {
    await expectHidden((rkey) =>
      stratos.callAs(carol, getRecord, { params: { ...addressOf(uri), rkey } }),
    )
  })

  test('lists leave out what getRecord hides', async () => {
    const params = { repo: alice.did, collection: postCollection }
    expect(textsOf((await stratos.call(listRecords, { params })).body)).toEqual([])
    expect(textsOf((await stratos.callAs(carol, listRecords, { params })).body)).toEqual([])
    expect(textsOf((await stratos.callAs(bob, listRecords, { params })).body)).toEqual([secret])
    expect(textsOf((await stratos.callAs(alice, listRecords, { params })).body)).toEqual([secret])
  })

  test('the author and a person of the same boundary read it under both names', async () => {
    for (const account of [alice, bob]) {
      for (const method of [getRecord, 'com.atproto.repo.getRecord']) {
        const answer = await stratos.callAs(account, method, { params: addressOf(uri) })
        expect(answer).toMatchObject({ status: 200, body: { uri, value: { text: secret } } })
      }
    }
  })

  test('the author may not be impersonated by a member of the boundary', async () => {
    const answer = await stratos.callAs(bob, 'zone.stratos.repo.deleteRecord', {
      input: addressOf(uri),
    })
    expect(answer).toMatchObject({ status: 403, body: { error: 'Forbidden' } })
  })
})

describe('what the PDS shows to everybody', () => {
  let stub: PublicRecord
  let enrollment: PublicRecord

  beforeAll(async () => {
    stub = await eventually('stub', () => network.getRecord(addressOf(uri)))
    enrollment = await eventually('enrollment record with the boundary', async () => {
      const [record] = await network.listRecords(alice.did, enrollmentCollection)
      // The boundaries were set after enrollment, so an older record may still be there.
      const values = record === undefined ? [] : boundariesOf(record)
      return values.join() === stratos.boundary('engineering') ? record : undefined
    })
  })

  test('the stub points back and names neither text nor boundary', async () => {
    const { value } = stub
    const answer = await stratos.callAs(alice, getRecord, { params: addressOf(uri) })
    expect(value).toEqual({
      $type: postCollection,
      source: {
        vary: 'authenticated',
        subject: { uri, cid: textOf(answer.body, 'cid') },
        service: `${stratos.did}#atproto_pns`,
      },
      createdAt: textOf(fieldsOf(answer.body, 'value'), 'createdAt'),
    })
    expect(JSON.stringify(value)).not.toContain(secret)
    expect(JSON.stringify(value)).not.toContain('engineering')
  })

  test('the enrollment record names the service under the service DID', async () => {
    const record = enrollment.value
    expect(enrollment.uri).toEndWith(`/${enrollmentCollection}/${rkeyOf(stratos.did)}`)
    const document = await didDocument()
    const endpoints = listOf(document, 'service').map((entry) => textOf(entry, 'serviceEndpoint'))
    expect(endpoints).toContain(textOf(record, 'service'))
    expect(Object.keys(record).toSorted()).toEqual([
      '$type',
      'attestation',
      'boundaries',
      'createdAt',
      'service',
      'signingKey',
    ])
  })

  test('the attestation verifies under the key of did.json and covers the boundaries', async () => {
    const attestation = fieldsOf(enrollment.value, 'attestation')
    const signature = bytesOf(fieldsOf(attestation, 'sig'))
    const key = await serviceKey()
    expect(textOf(attestation, 'signingKey')).toBe(key)
    const claim = {
      boundaries: boundariesOf(enrollment).toSorted(),
      did: alice.did,
      signingKey: textOf(enrollment.value, 'signingKey'),
    }
    expect(await verifySignature(key, encode(claim), signature)).toBe(true)
    const wider = { ...claim, boundaries: [...claim.boundaries, stratos.boundary('design')] }
    expect(await verifySignature(key, encode(wider), signature)).toBe(false)
  })

  test('the exported repo verifies with @atproto/repo under the key of the record', async () => {
    const nsid = 'zone.stratos.sync.getRepo'
    const token = await network.serviceAuth(alice, { aud: stratos.did, lxm: nsid })
    const response = await xrpcResponse(stratos.url, nsid, {
      params: { did: alice.did },
      authorization: `Bearer ${token}`,
    })
    expect(response.status).toBe(200)
    const car = new Uint8Array(await response.arrayBuffer())
    const signingKey = textOf(enrollment.value, 'signingKey')
    const repo = await verifyRepoCar(car, alice.did, signingKey)
    expect(repo.creates.map(({ collection, rkey }) => `${collection}/${rkey}`)).toEqual([
      uri.replace(`at://${alice.did}/`, ''),
    ])
    const underAnotherKey = verifyRepoCar(car, alice.did, await serviceKey())
    expect(await failureOf(underAnotherKey)).toBeInstanceOf(Error)
  })

  test('nobody else may export the repo', async () => {
    const params = { did: alice.did }
    const answer = await stratos.callAs(bob, 'zone.stratos.sync.getRepo', { params })
    expect(answer.status).toBeOneOf([403, 404])
  })
})

test('who loses the boundary loses the post at once, and gets it back with the boundary', async () => {
  const read = () => stratos.callAs(bob, getRecord, { params: addressOf(uri) })
  expect(await read()).toMatchObject({ status: 200 })
  await stratos.setBoundaries(bob.did, [])
  expect(await read()).toMatchObject({ status: 404, body: { error: 'RecordNotFound' } })
  await stratos.setBoundaries(bob.did, ['engineering'])
  expect(await read()).toMatchObject({ status: 200 })
})

/** A hidden record and one that never was: same status, same body, same headers. */
async function expectHidden(readAs: (rkey: string) => Promise<Answer>): Promise<void> {
  const { rkey } = addressOf(uri)
  const absent = '3jzfcijpj2z2a'
  const [hidden, missing] = [await readAs(rkey), await readAs(absent)]
  expect(hidden).toMatchObject({ status: 404, body: { error: 'RecordNotFound' } })
  expect(JSON.stringify(hidden.body)).toBe(JSON.stringify(missing.body).replaceAll(absent, rkey))
  expect(comparable(hidden.headers)).toEqual(comparable(missing.headers))
}

/** Headers without those that tell requests apart. */
function comparable(headers: Headers): Record<string, string> {
  const own = ['date', 'x-request-id']
  return Object.fromEntries([...headers].filter(([name]) => !own.includes(name)))
}

function boundariesOf(record: PublicRecord): string[] {
  return listOf(record.value, 'boundaries').map((entry) => textOf(entry, 'value'))
}

/** Record keys hold no percent sign. */
function rkeyOf(serviceDid: string): string {
  return serviceDid.replaceAll('%3A', ':')
}

function bytesOf(fields: Readonly<Record<string, unknown>>): Uint8Array {
  return Buffer.from(textOf(fields, '$bytes'), 'base64')
}

async function didDocument(): Promise<Record<string, unknown>> {
  const response = await fetch(`${stratos.url}/.well-known/did.json`)
  return fieldsOf({ document: await response.json() }, 'document')
}

async function serviceKey(): Promise<string> {
  const methods = listOf(await didDocument(), 'verificationMethod')
  const method = methods.find((entry) => entry['id'] === `${stratos.did}#atproto`)
  return `did:key:${textOf(method ?? {}, 'publicKeyMultibase')}`
}
