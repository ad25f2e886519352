import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { checkTargets, targetUris, type Targets } from '../../src/service/targets.ts'
import { hostileJson } from '../atproto/lexicon-samples.ts'
import {
  a,
  b,
  c,
  post,
  postUri,
  quoteOf,
  quoteWithMedia,
  reference,
  refusalOf,
  replyTo,
} from './posts.ts'

const [seen, narrow, hidden] = [postUri('seen'), postUri('narrow'), postUri('hidden')]
const targets: Targets = { [seen]: [a, b], [narrow]: [a] }

function refusal(record: unknown, boundaries: readonly string[] = [a]): string {
  return refusalOf(() => checkTargets(record, { boundaries, targets }))
}

describe('a reply', () => {
  test('to what the author cannot see is refused, whichever end that is', () => {
    expect(refusal(post({ reply: replyTo(hidden) }))).toBe('CrossNamespaceReply')
    expect(refusal(post({ reply: replyTo(hidden, seen) }))).toBe('CrossNamespaceReply')
    expect(refusal(post({ reply: replyTo(seen, hidden) }))).toBe('CrossNamespaceReply')
  })

  test('to something odd is refused', () => {
    for (const reply of [null, 'text', {}, { root: reference(seen) }, { root: 1, parent: 2 }]) {
      expect(refusal({ reply })).toBe('CrossNamespaceReply')
    }
  })

  test('that names a boundary its parent lacks is refused', () => {
    expect(refusal(post({ reply: replyTo(narrow) }), [a, b])).toBe('ReplyBoundaryEscalation')
    expect(refusal(post({ reply: replyTo(seen, narrow) }), [b])).toBe('ReplyBoundaryEscalation')
    expect(refusal(post({ reply: replyTo(seen) }), [a, b, c])).toBe('ReplyBoundaryEscalation')
  })

  test('is bound by its parent, not by the root of the thread', () => {
    expect(refusal(post({ reply: replyTo(narrow, seen) }), [b])).toBe('accepted')
    expect(refusal(post({ reply: replyTo(seen, narrow) }), [a])).toBe('accepted')
  })

  test('is judged before the quote in it', () => {
    const both = post({ reply: replyTo(narrow), embed: quoteOf(hidden) })
    expect(refusal(both, [b])).toBe('ReplyBoundaryEscalation')
    expect(refusal(both, [a])).toBe('CrossNamespaceEmbed')
  })
})

describe('a quote', () => {
  test('of what the author cannot see is refused, with media or without', () => {
    expect(refusal(post({ embed: quoteOf(hidden) }))).toBe('CrossNamespaceEmbed')
    expect(refusal(post({ embed: quoteWithMedia(hidden) }))).toBe('CrossNamespaceEmbed')
  })

  test('of something odd is refused', () => {
    for (const record of [null, 'text', {}, { uri: 1 }, { record: {} }]) {
      expect(refusal({ embed: { record } })).toBe('CrossNamespaceEmbed')
    }
  })

  test('cannot hide behind another reference inside it', () => {
    const decoy = { ...reference(hidden), record: reference(seen) }
    const embed = { $type: 'app.bsky.embed.record', record: decoy }
    expect(refusal(post({ embed }))).toBe('CrossNamespaceEmbed')
    expect(targetUris(post({ embed }))).toEqual([hidden])
    const media = { ...quoteWithMedia(hidden), record: { ...quoteOf(hidden), uri: seen } }
    expect(refusal(post({ embed: media }))).toBe('CrossNamespaceEmbed')
  })

  test('may have other boundaries than what it quotes', () => {
    expect(refusal(post({ embed: quoteOf(narrow) }), [b])).toBe('accepted')
    expect(refusal(post({ embed: quoteWithMedia(narrow) }), [b])).toBe('accepted')
  })
})

test('names that every object knows are no targets', () => {
  for (const uri of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '']) {
    expect(refusal(post({ reply: replyTo(uri) }))).toBe('CrossNamespaceReply')
    expect(refusal(post({ embed: quoteOf(uri) }))).toBe('CrossNamespaceEmbed')
  }
})

test('members that come from a prototype are not seen', () => {
  const record: unknown = Object.create({ reply: replyTo(seen), embed: quoteOf(seen) })
  expect(targetUris(record)).toEqual([])
})

test('all references of a record are found, each once', () => {
  const record = post({ reply: replyTo(narrow, seen), embed: quoteWithMedia(narrow) })
  expect(targetUris(record)).toEqual([narrow, seen])
  expect(targetUris(post())).toEqual([])
  expect(targetUris(post({ embed: quoteWithMedia(seen).media }))).toEqual([])
})

test('any JSON is searched, and refused or taken, without a fault', () => {
  fc.assert(
    fc.property(hostileJson, hostileJson, hostileJson, (record, reply, embed) => {
      for (const value of [record, { reply, embed }, { embed: { record: embed } }]) {
        expect(Array.isArray(targetUris(value))).toBeTrue()
        refusal(value)
      }
    }),
    { numRuns: 300 },
  )
})
