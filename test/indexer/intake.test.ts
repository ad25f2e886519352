import { expect, test } from 'bun:test'
import { parseDid } from '../../src/atproto/syntax.ts'
import type { IndexEvent } from '../../src/indexer/event.ts'
import { Intake } from '../../src/indexer/intake.ts'

const service = parseDid('did:web:stratos.test')
const did = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')

test('as many batches are on their way as lanes need', async () => {
  expect(await batchesGiven(100)).toBe(9)
})

test('of large events one batch is on its way beside the one that is read', async () => {
  expect(await batchesGiven(8 * 1024 * 1024 + 1)).toBe(2)
  expect(await batchesGiven(3 * 1024 * 1024)).toBe(3)
  // One that cannot be read is kept to be looked at.
  expect(await batchesGiven(8 * 1024 * 1024 + 1, 'reset')).toBe(2)
})

/** Until whoever flushes has to wait, of one event each, which are not stored before. */
async function batchesGiven(bytes: number, kind: 'commit' | 'reset' = 'commit'): Promise<number> {
  const stored = Promise.withResolvers<void>()
  let given = 0
  const write = async () => {
    given += 1
    await stored.promise
  }
  const nothing = async () => undefined
  const frame = new Uint8Array(bytes)
  const eventOf = (seq: number): IndexEvent =>
    kind === 'commit'
      ? { kind, service, did, seq, ops: [], frame }
      : { kind, service, did, seq, refused: { error: 'not read', frame } }
  const writer = { write, setEnrollments: nothing, endEnrollment: nothing, heard: nothing }
  const intake = new Intake(writer, service)
  const reading = read(intake, eventOf)
  await Bun.sleep(1)
  const before = given
  stored.resolve()
  await reading
  expect(intake.waiting).toBe(0)
  // Nothing of what was given before counts any more.
  await read(intake, eventOf)
  expect(given).toBe(2 * batches)
  return before
}

async function read(intake: Intake, eventOf: (seq: number) => IndexEvent): Promise<void> {
  for (let seq = 1; seq <= batches; seq++) {
    intake.event(eventOf(seq))
    await intake.flush()
  }
  await intake.stored()
}

const batches = 20
