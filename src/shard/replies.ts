import { assert } from '../lib/assert.ts'
import type { ShardReply } from './messages.ts'

/*
 * A batch of replies is one text: the length of its head, ':', the head, which is the JSON array of
 * all replies, and then the texts of all records, in the order of the replies. In the head a reply
 * has their lengths. So they are neither escaped nor read on their way.
 */

/** A reply as JSON for the head, and its texts for behind. */
export function unpackedReply(reply: ShardReply): { head: string; texts: readonly string[] } {
  if (!('ok' in reply && 'texts' in reply.ok)) return { head: JSON.stringify(reply), texts: [] }
  const { id, ok } = reply
  const { texts, ...rest } = ok
  const head = JSON.stringify({ id, ok: rest, lengths: texts.map((text) => text.length) })
  return { head, texts }
}

export function joinReplies(heads: readonly string[], texts: readonly string[]): string {
  const head = `[${heads.join(',')}]`
  return `${head.length}:${head}${texts.join('')}`
}

export function splitReplies(batch: string): ShardReply[] {
  const colon = batch.indexOf(':')
  let at = colon + 1 + Number(batch.slice(0, colon))
  const packed: PackedReply[] = JSON.parse(batch.slice(colon + 1, at))
  const replies = packed.map((reply): ShardReply => {
    if (!('lengths' in reply)) return reply
    const texts = reply.lengths.map((length) => batch.slice(at, (at += length)))
    const ok: object = { ...reply.ok, texts }
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what `unpackedReply` took apart
    return { id: reply.id, ok } as ShardReply
  })
  assert(at === batch.length, 'a batch of replies ends with its last text')
  return replies
}

type PackedReply =
  | ShardReply
  | { readonly id: number; readonly ok: object; readonly lengths: readonly number[] }
