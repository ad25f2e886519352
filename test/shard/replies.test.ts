import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { parseTid } from '../../src/atproto/syntax.ts'
import type { ShardReply } from '../../src/shard/messages.ts'
import { joinReplies, splitReplies, unpackedReply } from '../../src/shard/replies.ts'

const rev = parseTid('3kabcdefghij2')
const texts = fc.array(fc.string({ unit: 'binary' }), { maxLength: 5 })
const reply = fc.oneof(
  texts.map((all): ShardReply => ({ id: 1, ok: { rev, cid: null, texts: all } })),
  fc.string().map((error): ShardReply => {
    return { id: 2, error: { status: 400, error, message: error, headers: {}, fields: {} } }
  }),
  fc.string().map((signingKey): ShardReply => ({ id: 3, ok: { signingKey } })),
)

describe('a batch of replies', () => {
  test('arrives as it was sent, whatever its texts hold', () => {
    fc.assert(
      fc.property(fc.array(reply, { maxLength: 8 }), (replies) => {
        expect(splitReplies(packed(replies))).toEqual(replies)
      }),
    )
  })

  test('that was cut short or has something behind it is no batch', () => {
    fc.assert(
      fc.property(fc.array(reply, { minLength: 1, maxLength: 8 }), fc.nat(), (replies, at) => {
        const batch = packed(replies)
        expect(() => splitReplies(batch.slice(0, at % batch.length))).toThrow()
        expect(() => splitReplies(`${batch}x`)).toThrow()
      }),
    )
  })
})

function packed(replies: readonly ShardReply[]): string {
  const parts = replies.map(unpackedReply)
  return joinReplies(
    parts.map(({ head }) => head),
    parts.flatMap((part) => part.texts),
  )
}
