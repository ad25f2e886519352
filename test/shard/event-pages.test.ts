import { expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import type { EventsAnswer } from '../../src/service/calls.ts'
import { EventPages } from '../../src/shard/event-pages.ts'

const did = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const other = parseDid('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb')

/** Pages that count how often they were read. */
class Log {
  reads = 0
  readonly pages = new EventPages()

  async page(of = did, { after = 0, head = 1 } = {}): Promise<EventsAnswer> {
    return await this.pages.of({ did: of, after, head }, async () => {
      const bytes = new Uint8Array([++this.reads])
      return { bytes, seqs: [1], lengths: [1], last: 1, head, pruned: 0 }
    })
  }
}

test('a log that has grown, another place in it and another log are read anew', async () => {
  const log = new Log()
  await log.page()
  expect((await log.page(did, { head: 2 })).bytes).toEqual(new Uint8Array([2]))
  expect((await log.page(did, { after: 1 })).bytes).toEqual(new Uint8Array([3]))
  expect((await log.page(other)).bytes).toEqual(new Uint8Array([4]))
})

test('what is forgotten is read anew, of its actor alone', async () => {
  const log = new Log()
  await log.page()
  await log.page(other)
  log.pages.forget(did)
  expect((await log.page()).bytes).toEqual(new Uint8Array([3]))
  expect((await log.page(other)).bytes).toEqual(new Uint8Array([2]))
})

test('a page that could not be read is not kept', async () => {
  const log = new Log()
  const place = { did, after: 0, head: 1 }
  const failing = async () => await Promise.reject<EventsAnswer>(new Error('no disk'))
  const both = [log.pages.of(place, failing), log.pages.of(place, failing)]
  const found = await Promise.allSettled(both)
  expect(found.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  expect((await log.page()).seqs).toEqual([1])
})

test('readers at once have one reading, and bytes of their own', async () => {
  const log = new Log()
  const [first, second] = await Promise.all([log.page(), log.page()])
  expect(log.reads).toBe(1)
  expect(first?.bytes).toEqual(new Uint8Array([1]))
  // As when it is handed to another thread.
  if (first !== undefined) first.bytes.buffer.transfer()
  expect(second?.bytes).toEqual(new Uint8Array([1]))
  expect((await log.page()).bytes).toEqual(new Uint8Array([1]))
  expect(log.reads).toBe(1)
})

test('only a few are kept, the newest', async () => {
  const log = new Log()
  for (let after = 0; after < 5; after++) await log.page(did, { after })
  await log.page(did, { after: 4 })
  expect(log.reads).toBe(5)
  await log.page(did, { after: 0 })
  expect(log.reads).toBe(6)
})
