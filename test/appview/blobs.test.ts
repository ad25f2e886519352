import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import { blobViews } from '../../src/appview/blobs.ts'
import { didOf } from './small-index.ts'

const did = didOf('ann')
const home = { did, serviceUrl: 'https://stratos.example.com' }

function blob(text: string): DataObject {
  const cid = cidToString(cidForRaw(Buffer.from(text)))
  return { $type: 'blob', ref: { $link: cid }, mimeType: 'image/png', size: text.length }
}

function cidsOf(record: DataValue): string[] {
  return blobViews(record, home).map(({ cid }) => cid)
}

function cidOf(text: string): string {
  return cidToString(cidForRaw(Buffer.from(text)))
}

describe('no blob is', () => {
  const one = blob('one')
  const cbor = { $link: 'bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku' }
  const faults: Record<string, DataValue> = {
    'of another type': { ...one, $type: 'image' },
    'without a link': { ...one, ref: cidOf('one') },
    'by the link to a record': { ...one, ref: cbor },
    'by the link to nothing': { ...one, ref: { $link: 'x&did=did:web:evil.example' } },
    'without a media type': { ...one, mimeType: null },
    'of a media type longer than any': { ...one, mimeType: `a/${'b'.repeat(254)}` },
    'without a size': { ...one, size: '3' },
    'of a negative size': { ...one, size: -1 },
  }
  test.each(Object.entries(faults))('%s', (_, value) => {
    expect(cidsOf({ embed: value })).toEqual([])
    expect(cidsOf({ embed: [value, one] })).toEqual([cidOf('one')])
  })

  test('at a service whose address is none of the web', () => {
    const long = `https://${'a.'.repeat(300)}example`
    for (const serviceUrl of [
      '',
      'stratos.example.com',
      'javascript:alert(1)',
      'file:///x',
      long,
    ]) {
      expect(blobViews(one, { did, serviceUrl })).toEqual([])
    }
  })
})

test('a blob has the address of its bytes at the service of its author', () => {
  expect(blobViews({ embed: blob('one') }, home)).toEqual([
    {
      cid: cidOf('one'),
      mimeType: 'image/png',
      size: 3,
      url: `https://stratos.example.com/xrpc/com.atproto.sync.getBlob?did=${encodeURIComponent(did)}&cid=${cidOf('one')}`,
    },
  ])
})

test('blobs are in the order of the record, each once', () => {
  const record = {
    a: [{ image: blob('1') }, { image: blob('2') }],
    b: { thumb: blob('1'), media: { c: blob('3') } },
  }
  expect(cidsOf(record)).toEqual(['1', '2', '3'].map(cidOf))
})

test('of many blobs the first sixteen are shown', () => {
  const names = Array.from({ length: 100 }, (_, index) => String(index))
  expect(cidsOf(names.map(blob))).toEqual(names.slice(0, 16).map(cidOf))
})

test('a record of many values is not looked at to its end', () => {
  const many: DataValue[] = Array.from({ length: 200_000 }, () => 0)
  expect(cidsOf([many, blob('one')])).toEqual([])
})

test('any record has its blobs at the service, or none', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), fc.webUrl(), (value, serviceUrl) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- JSON may have floats: the walk must bear them
      const record = [value, blob('one')] as unknown as DataValue
      for (const { url } of blobViews(record, { did, serviceUrl })) {
        expect(new URL(url).origin).toBe(new URL(serviceUrl).origin)
      }
    }),
  )
})
