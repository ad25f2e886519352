import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import {
  blob,
  boundaries,
  bytes,
  enrollment,
  facet,
  hostileJson,
  images,
  post,
  refusalOf,
  strongRef,
  tagFeature,
} from './lexicon-samples.ts'

const schemas = new Schemas(schemaDocs)
const postNsid = 'zone.stratos.feed.post'
const enrollmentNsid = 'zone.stratos.actor.enrollment'

const postRefusal = (over: Readonly<Record<string, unknown>>) =>
  refusalOf(() => schemas.checkRecord(postNsid, post(over)))

/** What is put over a good post, and what the refusal must say. */
const badPosts: readonly (readonly [string, Record<string, unknown>, string])[] = [
  ['301 graphemes', { text: 'a'.repeat(301) }, 'Record/text must not be longer than 300 graphemes'],
  ['301 flags', { text: '🇩🇪'.repeat(301) }, 'Record/text must not be longer than 300 graphemes'],
  ['3001 bytes', { text: 'é'.repeat(1500) + 'a' }, 'Record/text must not be longer than 3000'],
  ['half a surrogate pair', { text: '\ud83d' }, 'Record.text'],
  ['a number for text', { text: 1 }, 'Record/text must be a string'],
  ['null for text', { text: null }, 'Record/text must be a string'],
  ['an unknown fraction', { extra: { deep: [1.5] } }, 'Record.extra.deep[0]'],
  ['an unknown huge integer', { extra: 2 ** 53 }, 'Record.extra'],
  ['a date', { createdAt: '2026-11-01' }, 'Record/createdAt must be a datetime'],
  ['a datetime without zone', { createdAt: '2026-11-01T10:00:00' }, 'Record/createdAt'],
  ['a datetime in words', { createdAt: 'yesterday' }, 'Record/createdAt'],
  ['a 31st of February', { createdAt: '2026-02-31T25:00:00Z' }, 'Record/createdAt'],
  ['a number for createdAt', { createdAt: 1_793_527_200 }, 'Record/createdAt must be a string'],
  ['four langs', { langs: ['en', 'de', 'fr', 'nl'] }, 'Record/langs must not have more than 3'],
  ['a lang that is none', { langs: ['en', '123'] }, 'Record/langs/1 must be a well-formed BCP 47'],
  ['langs as text', { langs: 'en' }, 'Record/langs must be an array'],
  ['nine tags', { tags: 'abcdefghi'.split('') }, 'Record/tags must not have more than 8'],
  ['a tag of 65 graphemes', { tags: ['a'.repeat(65)] }, 'Record/tags/0 must not be longer than 64'],
  ['a tag of 641 bytes', { tags: ['👩‍👩‍👦‍👦'.repeat(26)] }, 'Record/tags/0 must not be longer than 640'],
  ['a number for a tag', { tags: [1] }, 'Record/tags/0 must be a string'],
  ['33 bytes of salt', { salt: bytes(33) }, 'Record/salt must not be larger than 32 bytes'],
  ['text for salt', { salt: 'AAAA' }, 'Record/salt must be a byte array'],
  ['broken base64', { salt: { $bytes: '*' } }, 'Record.salt'],
  ['a boundary as text', { boundary: 'friends' }, 'Record/boundary must be an object'],
  ['no boundary', { boundary: undefined }, 'Record.boundary'],
  ['eleven boundaries', { boundary: boundaries(11) }, 'Record/boundary/values must not have more'],
  ['zero boundaries', { boundary: boundaries(0) }, 'Record/boundary/values must not have fewer'],
  [
    'a boundary of 254 characters',
    { boundary: { values: [{ value: 'a'.repeat(254) }] } },
    'Record/boundary/values/0/value must not be longer than 253',
  ],
  ['source as text', { source: 'did:web:stratos.test' }, 'Record/source must be an object'],
  ['labels without type', { labels: { values: [] } }, 'Record/labels must be an object which'],
  ['labels of another type', { labels: { $type: 'a.b.c' } }, 'Record/labels $type must be one of'],
  ['a reply without root', { reply: { parent: strongRef } }, 'Record/reply must have the property'],
  [
    'a reply to a page',
    { reply: { root: strongRef, parent: { ...strongRef, uri: 'https://stratos.test' } } },
    'Record/reply/parent/uri must be a valid at-uri',
  ],
  [
    'a reply to no CID',
    { reply: { root: { ...strongRef, cid: 'z'.repeat(200) }, parent: strongRef } },
    'Record/reply/root/cid must be a cid string',
  ],
  [
    'an old blob without a CID, in any member',
    { extra: { cid: 'x', mimeType: 'image/png' } },
    'Record holds a blob of the old form',
  ],
  ['facets as an object', { facets: {} }, 'Record/facets must be an array'],
  ['a facet without features', { facets: [{ index: {} }] }, 'Record/facets/0'],
  [
    'a facet at a fraction',
    { facets: [facet(tagFeature, { byteStart: 0.5, byteEnd: 5 })] },
    'Record.facets[0].index.byteStart: must be an integer',
  ],
  [
    'a facet at minus one',
    { facets: [facet(tagFeature, { byteStart: -1, byteEnd: 5 })] },
    'Record/facets/0/index/byteStart can not be less than 0',
  ],
  [
    'a mention of nobody',
    { facets: [facet({ $type: 'app.bsky.richtext.facet#mention', did: 'alice' })] },
    'Record/facets/0/features/0/did must be a valid did',
  ],
  ['a feature without type', { facets: [facet({ tag: 'cats' })] }, 'Record/facets/0/features/0'],
]

const badEmbeds: readonly (readonly [string, unknown, string])[] = [
  ['text', 'app.bsky.embed.images', 'Record/embed must be an object'],
  ['a list', [images(blob())], 'Record/embed must be an object'],
  ['an object without type', { images: [] }, 'Record/embed must be an object which includes'],
  ['an unknown type', { $type: 'com.example.poll' }, 'Record/embed $type must be one of app.bsky'],
  ['a type of two parts', { $type: 'a.b.c#d#e' }, 'Record/embed/$type must be an NSID'],
  ['an empty type', { $type: '' }, 'Record.embed'],
  ['a number as type', { $type: 1 }, 'Record.embed'],
  [
    'a quote by a URI of the package',
    { $type: 'lex:app.bsky.embed.record', record: strongRef },
    'Record/embed/$type must be an NSID',
  ],
  [
    'a quote by the name of the main part',
    { $type: 'app.bsky.embed.record#main', record: strongRef },
    'Record/embed/$type must be an NSID',
  ],
  [
    'media by the name of the main part',
    withMedia({ ...images(blob()), $type: 'app.bsky.embed.images#main' }),
    'Record/embed/media/$type must be an NSID',
  ],
  ['five images', images(blob(), blob(), blob(), blob(), blob()), 'Record/embed/images must not'],
  ['a link as image', images({ $link: strongRef.cid }), 'Record/embed/images/0/image must be'],
  [
    'an old form of blob',
    images({ cid: strongRef.cid, mimeType: 'image/png' }),
    'image must be a blob',
  ],
  ['an image of text', images(blob({ mimeType: 'text/html' })), 'image must be of type image/*'],
  ['an image of 3 MB', images(blob({ size: 3e6 })), 'image must not be larger than 2000000 bytes'],
  ['a blob with more to it', images(blob({ extra: 1 })), 'Record.embed.images[0].image'],
  ['a blob of negative size', images(blob({ size: -1 })), 'Record.embed.images[0].image'],
  [
    'a video of another type',
    { $type: 'app.bsky.embed.video', video: blob({ mimeType: 'video/webm' }) },
    'Record/embed/video must be of type video/mp4',
  ],
  ['a quote of nothing', { $type: 'app.bsky.embed.record' }, 'Record/embed must have the property'],
  [
    'a link that is no URI',
    { $type: 'app.bsky.embed.external', external: { uri: 'x', title: '', description: '' } },
    'Record/embed/external/uri must be a uri',
  ],
]

const badEnrollments: readonly (readonly [string, Record<string, unknown>, string])[] = [
  ['a service that is no URI', { service: 'stratos' }, 'Record/service must be a uri'],
  ['bare boundaries', { boundaries: ['a'] }, 'Record/boundaries/0 must be an object'],
  ['51 boundaries', { boundaries: boundaries(51).values }, 'Record/boundaries must not have more'],
  ['a key that is no DID', { signingKey: 'zDna' }, 'Record/signingKey must be a valid did'],
  ['an attestation as text', { attestation: 'x' }, 'Record/attestation must be an object'],
  ['an attestation without key', { attestation: { sig: bytes(64) } }, 'Record/attestation must'],
  [
    'a signature of 65 bytes',
    { attestation: { sig: bytes(65), signingKey: 'did:key:zQ3sh' } },
    'Record/attestation/sig must not be larger than 64 bytes',
  ],
  ['a date', { createdAt: '2026-11-01' }, 'Record/createdAt must be a datetime'],
]

describe('checkRecord', () => {
  test.each(badPosts)('a post with %s is refused', (_name, over, words) => {
    expect(postRefusal(over)).toStartWith(`InvalidRecord: ${words}`)
  })

  test.each(badEmbeds)('a post with %s as embed is refused', (_name, embed, words) => {
    const message = postRefusal({ embed })
    expect(message).toStartWith('InvalidRecord: Record')
    expect(message).toContain(words)
  })

  test.each(['text', 'boundary', 'createdAt'])('a post without %s is refused', (name) => {
    const { [name]: _left, ...rest } = post()
    expect(refusalOf(() => schemas.checkRecord(postNsid, rest))).toBe(
      `InvalidRecord: Record must have the property "${name}"`,
    )
  })

  test.each([
    'app.bsky.feed.post',
    'lex:zone.stratos.feed.post',
    'zone.stratos.feed.post#main',
    'a#b#c',
  ])('a post that calls itself %s is refused', ($type) => {
    expect(postRefusal({ $type })).toBe(`InvalidRecord: Record/$type must be ${postNsid}`)
  })

  test('a post without $type is refused', () => {
    const { $type: _left, ...rest } = post()
    expect(refusalOf(() => schemas.checkRecord(postNsid, rest))).toContain('Record/$type must be')
  })

  test('what is no object is no record', () => {
    for (const record of [null, undefined, 1, 'text', [], true, { $link: strongRef.cid }]) {
      expect(refusalOf(() => schemas.checkRecord(postNsid, record))).toContain('InvalidRecord')
    }
  })

  test('a member named __proto__ is refused at any depth', () => {
    const extra: unknown = JSON.parse('{"a":[{"__proto__":{"text":1}}]}')
    expect(postRefusal({ extra })).toContain('InvalidRecord: Record.extra.a[0]')
    const text = JSON.stringify(post()).replace('{', '{"__proto__":{"embed":1},')
    expect(refusalOf(() => schemas.checkRecord(postNsid, JSON.parse(text)))).toContain('__proto__')
  })

  test('nesting that would end the stack is refused', () => {
    const extra: unknown = JSON.parse('['.repeat(50_000) + ']'.repeat(50_000))
    expect(postRefusal({ extra })).toContain('InvalidRecord: Record.extra[0]')
  })

  test('very long arrays are refused before the lexicon is asked', () => {
    const facets = Array(500_000).fill(facet(tagFeature))
    expect(postRefusal({ facets })).toContain('more than 20000 values')
  })

  test.each(badEnrollments)('an enrollment with %s is refused', (_name, over, words) => {
    const message = refusalOf(() => schemas.checkRecord(enrollmentNsid, enrollment(over)))
    expect(message).toStartWith(`InvalidRecord: ${words}`)
  })

  test.each(['service', 'signingKey', 'attestation', 'createdAt'])(
    'an enrollment without %s is refused',
    (name) => {
      const { [name]: _left, ...rest } = enrollment()
      expect(refusalOf(() => schemas.checkRecord(enrollmentNsid, rest))).toContain(`"${name}"`)
    },
  )

  test('a collection without lexicon, or a method, is a fault of the caller', () => {
    expect(() => schemas.checkRecord('com.example.none', {})).toThrow('the lexicon of a record')
    expect(() => schemas.checkRecord('zone.stratos.repo.getRecord', {})).toThrow(
      'the lexicon of a record',
    )
  })

  test('whatever JSON stands in a member, the post passes or is an InvalidRecord', () => {
    const members = Object.keys(post()).concat('embed', 'facets', 'labels', 'reply', 'salt', 'x')
    fc.assert(
      fc.property(fc.constantFrom(...members), hostileJson, (name, value) => {
        expect(postRefusal({ [name]: value })).toMatch(/^(?:accepted|InvalidRecord: Record)/)
      }),
      { numRuns: 1000 },
    )
  })

  test('a post at every limit passes, and is handed back untouched', () => {
    const record = post({
      text: '👩‍👩‍👦‍👦'.repeat(120),
      facets: [
        facet(tagFeature),
        facet({ $type: 'app.bsky.richtext.facet#link', uri: 'https://stratos.test/?q=1' }),
        facet({ $type: 'com.example.facet#novel', anything: [1] }),
      ],
      reply: { root: strongRef, parent: strongRef },
      langs: ['en', 'de-CH', 'zh-Hant'],
      labels: { $type: 'com.atproto.label.defs#selfLabels', values: [{ val: 'nudity' }] },
      tags: Array(8).fill('a'.repeat(64)),
      boundary: { $type: 'zone.stratos.boundary.defs#Domains', ...boundaries(10) },
      salt: bytes(32),
      later: { members: ['of', { any: 'kind' }] },
    })
    const before = structuredClone(record)
    const checked: unknown = schemas.checkRecord(postNsid, record)
    expect(checked).toBe(record)
    expect(record).toEqual(before)
  })

  test.each([
    ['images', images(blob(), blob({ mimeType: 'image/jpeg' }))],
    ['video', { $type: 'app.bsky.embed.video', video: blob({ mimeType: 'video/mp4' }) }],
    [
      'external',
      {
        $type: 'app.bsky.embed.external',
        external: { uri: 'https://stratos.test', title: '', description: '', thumb: blob() },
      },
    ],
    ['record', { $type: 'app.bsky.embed.record', record: strongRef }],
    ['recordWithMedia', withMedia(images(blob()))],
  ])('a post with embed %s passes', (_name, embed) => {
    expect(postRefusal({ embed })).toBe('accepted')
  })

  test('datetimes of every zone and precision pass', () => {
    for (const createdAt of ['2026-11-01T10:00:00Z', '1985-04-12T23:20:50.1234567+01:45']) {
      expect(postRefusal({ createdAt })).toBe('accepted')
    }
  })

  test('an enrollment passes, with boundaries and without', () => {
    const { boundaries: _left, ...unpublished } = enrollment()
    const checked: unknown = schemas.checkRecord(enrollmentNsid, unpublished)
    expect(checked).toBe(unpublished)
    expect(refusalOf(() => schemas.checkRecord(enrollmentNsid, enrollment()))).toBe('accepted')
  })
})

function withMedia(media: unknown): unknown {
  return { $type: 'app.bsky.embed.recordWithMedia', record: { record: strongRef }, media }
}
