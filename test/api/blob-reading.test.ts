import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { type Answer, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { exactText } from '../kit/exact.ts'
import { type BlobName, blobNames, BlobReaders } from './blob-readers.ts'

setDefaultTimeout(60_000)

const names = ['com.atproto.sync.getBlob', 'zone.stratos.sync.getBlob'] as const
const getUrl = 'zone.stratos.sync.getBlobUrl'
const missing: Refusal = [404, 'BlobNotFound']
const read = 'read'
type Row = Partial<Record<BlobName, typeof read | Refusal>>

const inA: Row = { 'in-a': read, 'in-both': read, 'in-each': read }
const inB: Row = {
  'in-b': read,
  'in-both': read,
  'in-each': read,
  'beside-taken': read,
  moved: read,
  'of-erin': read,
}
const ofAandB: Row = { ...inA, ...inB }

/** What is not named is missing. */
const callers: Readonly<Record<string, Row>> = {
  anonymous: {},
  stranger: {},
  lou: {},
  bob: inA,
  carol: {},
  dave: {},
  mia: inA,
  alice: { ...ofAandB, 'in-lost': read, taken: [403, 'BlobTakendown'] },
  tom: { ...ofAandB, 'of-tom': [403, 'RepoTakendown'] },
  // Inactive: of others there is nothing to see.
  ivy: { 'of-ivy': read },
  // By service auth an AppView, whatever she is besides.
  erin: inA,
  moderator: {},
  all: ofAandB,
  'of-a': inA,
  'of-b': inB,
  'of-c': {},
  'of-each': ofAandB,
  admin: {
    ...ofAandB,
    'in-lost': read,
    'of-taken': read,
    taken: read,
    'of-tom': read,
    'of-ivy': read,
  },
}

let blobs: BlobReaders
beforeAll(async () => {
  blobs = await BlobReaders.start()
})
afterAll(async () => {
  await blobs?.readers.stratos.stop()
})

describe.each(Object.entries(callers))('%s', (name, row) => {
  const shown = blobNames.filter((blob) => row[blob] === read)
  const refused = blobNames.flatMap((blob) => {
    const outcome = row[blob] ?? missing
    return outcome === read ? [] : [[blob, outcome] as const]
  })

  test.each(refused)('is refused the blob %s', async (blob, refusal) => {
    const params = blobs.params(blob)
    for (const nsid of [...names, getUrl]) {
      expectOutcome(blob, await blobs.readers.ask(name, nsid, { params }), refusal)
    }
  })

  test('is told of the blobs that are not to be seen what is told of one that never was', async () => {
    const hidden = refused.filter(([, [, error]]) => error === 'BlobNotFound')
    expect(hidden.length).toBeGreaterThan(5)
    for (const nsid of [...names, getUrl]) {
      for (const verb of [undefined, 'HEAD'] as const) {
        const of = (params: { readonly did: string; readonly cid: string }) =>
          blobs.exact(name, nsid, { params, ...(verb === undefined ? {} : { verb }) })
        const answers = new Set<string>([await of(blobs.never('in-a'))])
        for (const [blob] of hidden) answers.add(await of(blobs.params(blob)))
        expect([...answers]).toHaveLength(1)
        expect([...answers][0]).toStartWith('HTTP 404')
      }
    }
  })

  test('is told of a range, and of what it knows already, what is told of the whole', async () => {
    const authorization = await blobs.readers.credential(name, names[0])
    for (const [blob] of refused) {
      const params = blobs.params(blob)
      const ask = async (headers: Readonly<Record<string, string>>) =>
        exactText(
          await xrpcResponse(blobs.readers.stratos.url, names[0], {
            params,
            authorization,
            headers,
          }),
        )
      const whole = await ask({})
      expect(await ask({ range: 'bytes=0-1' })).toBe(whole)
      expect(await ask({ range: 'bytes=999999999-' })).toBe(whole)
      expect(await ask({ 'if-none-match': `"${params.cid}"` })).toBe(whole)
      expect(await ask({ 'if-none-match': '*' })).toBe(whole)
    }
  })

  if (shown.length === 0) return
  test.each(shown)('reads the blob %s', async (blob) => {
    const { bytes, did, cid } = blobs.blob(blob)
    const params = { did, cid }
    for (const nsid of names) {
      const response = await ask(name, nsid, params)
      expect([response.status, response.headers.get('content-type')]).toEqual([200, 'image/png'])
      expect(await response.bytes()).toEqual(bytes)
    }
    const answer = await blobs.readers.ask(name, getUrl, { params })
    if (name === 'admin') return expectRefusal(answer, [403, 'Forbidden'])
    expect(answer.status).toBe(200)
    const linked = await fetch(textOf(answer.body, 'url'))
    expect(linked.status).toBe(200)
    expect(await linked.bytes()).toEqual(bytes)
  })
})

test.each([
  [
    'a record of a CID',
    { cid: 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a' },
    404,
  ],
  ['no CID', { cid: '../../signing_key' }, 400],
  ['an empty CID', { cid: '' }, 400],
  ['a handle', { did: 'alice.test' }, 400],
  ['a DID that goes up', { did: 'did:plc:../../x' }, 400],
  ['no DID', { did: '' }, 400],
])('%s names no blob', async (_, over, status) => {
  const params = { ...blobs.params('in-a'), ...over }
  for (const nsid of [...names, getUrl]) {
    const answer = await blobs.readers.ask('alice', nsid, { params })
    expectRefusal(answer, status === 404 ? missing : [400, 'InvalidRequest'])
  }
})

function expectOutcome(blob: BlobName, answer: Answer, refusal: Refusal): void {
  expect([blob, answer.status]).toEqual([blob, refusal[0]])
  expectRefusal(answer, refusal)
}

async function ask(
  name: string,
  nsid: string,
  params: { readonly did: string; readonly cid: string },
): Promise<Response> {
  const authorization = await blobs.readers.credential(name, nsid)
  return await xrpcResponse(blobs.readers.stratos.url, nsid, { params, authorization })
}
