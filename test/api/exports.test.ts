import { expect, test } from 'bun:test'
import { Exports } from '../../src/api/exports.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import { failureOf } from '../kit/wait.ts'

const did = (name: string) => parseDid(`did:plc:${name}`)
const mebibyte = 1024 * 1024
const bytesOf = (length: number) => async () => new Uint8Array(length).fill(7)

test('a second export of a repo is refused while the first is being sent', async () => {
  const exports = new Exports()
  await exports.stream(did('alice'), bytesOf(mebibyte))
  const refusal = await failureOf(exports.stream(did('alice'), bytesOf(mebibyte)))
  expect(refusal).toMatchObject({ status: 503, error: 'Overloaded' })
})

test('so are exports of others once too many bytes wait for slow clients', async () => {
  const exports = new Exports()
  await exports.stream(did('alice'), bytesOf(40 * mebibyte))
  await exports.stream(did('bob'), bytesOf(40 * mebibyte))
  const refusal = await failureOf(exports.stream(did('carol'), bytesOf(1)))
  expect(refusal).toMatchObject({ status: 503, error: 'Overloaded' })
})

test('exports that are still being read count, too', async () => {
  const exports = new Exports()
  const reading = Promise.withResolvers<Uint8Array<ArrayBuffer>>()
  const begun = ['alice', 'bob', 'carol'].map((name) =>
    exports.stream(did(name), () => reading.promise),
  )
  const refusal = await failureOf(exports.stream(did('dan'), bytesOf(1)))
  expect(refusal).toMatchObject({ status: 503, error: 'Overloaded' })
  reading.resolve(new Uint8Array(1))
  for (const stream of await Promise.all(begun)) await new Response(stream).bytes()
  expect(await failureOf(exports.stream(did('dan'), bytesOf(1)))).toBeUndefined()
})

test('an export that was sent, cancelled or failed makes room', async () => {
  const exports = new Exports()
  const sent = await exports.stream(did('alice'), bytesOf(70 * mebibyte))
  expect((await new Response(sent).bytes()).length).toBe(70 * mebibyte)
  const cancelled = await exports.stream(did('alice'), bytesOf(70 * mebibyte))
  await cancelled.cancel()
  const broken = async () => {
    throw new Error('the shard refused')
  }
  expect(await failureOf(exports.stream(did('alice'), broken))).toHaveProperty(
    'message',
    'the shard refused',
  )
  const last = await exports.stream(did('alice'), bytesOf(3))
  expect(await new Response(last).bytes()).toEqual(new Uint8Array([7, 7, 7]))
})

test('an export that is cancelled after its end makes no room that the next one has', async () => {
  const exports = new Exports()
  // Its only piece waits for a client who never takes it.
  const first = await exports.stream(did('alice'), bytesOf(1))
  await Bun.sleep(0)
  await exports.stream(did('alice'), bytesOf(mebibyte))
  await first.cancel()
  const refusal = await failureOf(exports.stream(did('alice'), bytesOf(1)))
  expect(refusal).toMatchObject({ status: 503, error: 'Overloaded' })
})
