import { describe, expect, test } from 'bun:test'
import { encodeRecord } from '../../src/service/record.ts'
import { a, collection, post, quoteWithMedia, refusalOf, rules, schemas, postUri } from './posts.ts'

const uri = postUri('quoted')
const tag = { $type: 'app.bsky.richtext.facet#tag', tag: 'x' }
const external = { uri: 'https://example.com', title: '', description: '' }

/** Four bytes a letter. */
const text = '\u{1F600}\u{1F600}'

describe('a facet', () => {
  test.each([
    ['of the whole text', 0, 8, 'accepted'],
    ['of its last letter', 4, 8, 'accepted'],
    ['that goes on behind the text', 4, 9, 'InvalidRecord'],
    ['beyond the text', 8, 12, 'InvalidRecord'],
    ['of nothing', 4, 4, 'InvalidRecord'],
    ['that ends before it starts', 5, 4, 'InvalidRecord'],
    ['of before the text', -1, 4, 'InvalidRecord'],
  ])('%s', (_, byteStart, byteEnd, outcome) => {
    const facets = [{ index: { byteStart, byteEnd }, features: [tag] }]
    expect(outcomeOf({ text, facets })).toBe(outcome)
  })

  test('after a good one is looked at, too', () => {
    const facet = (byteEnd: number) => ({ index: { byteStart: 0, byteEnd }, features: [tag] })
    expect(outcomeOf({ text, facets: [facet(8), facet(9)] })).toBe('InvalidRecord')
  })
})

describe('media beside a quote', () => {
  const withMedia = (media: object) => ({ embed: { ...quoteWithMedia(uri), media } })

  test('may be a link', () => {
    expect(outcomeOf(withMedia({ $type: 'app.bsky.embed.external', external }))).toBe('accepted')
  })

  test.each([
    ['of an unknown kind', { $type: 'com.example.embed.hologram', uri }],
    ['that is a quote again', { $type: 'app.bsky.embed.record', record: { uri, cid: 'x' } }],
    ['without a kind', { external }],
  ])('%s is refused', (_, media) => {
    expect(outcomeOf(withMedia(media))).toBe('InvalidRecord')
  })
})

describe('labels of the author', () => {
  const labels = (...values: unknown[]) => ({
    labels: { $type: 'com.atproto.label.defs#selfLabels', values },
  })
  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ['are taken', labels({ val: 'porn' }), 'accepted'],
    ['of another kind are refused', { labels: { $type: 'com.example.labels' } }, 'InvalidRecord'],
    ['without a value are refused', labels({}), 'InvalidRecord'],
    ['that are too long are refused', labels({ val: 'x'.repeat(129) }), 'InvalidRecord'],
    [
      'that are too many are refused',
      labels(...Array.from({ length: 11 }, (_, index) => ({ val: `${index}` }))),
      'InvalidRecord',
    ],
  ])('%s', (_, over, outcome) => {
    expect(outcomeOf(over)).toBe(outcome)
  })
})

function outcomeOf(over: Readonly<Record<string, unknown>>): string {
  const facts = { boundaries: [a], targets: { [uri]: [a] } }
  return refusalOf(() => encodeRecord(collection, post(over), { rules, schemas, facts }))
}
