import { afterEach, describe, expect, test } from 'bun:test'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import fc from 'fast-check'
import { parseDid } from '../../src/atproto/syntax.ts'
import { removeActorFolder } from '../../src/store/actor-folder.ts'
import { changesText } from '../../src/store/change-text.ts'
import { readJournalFile } from '../../src/store/journal-file.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { put } from './changes.ts'
import { Journaled, journalBytes, openActor, recovered, storedKeys } from './journaled.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const open: Journaled[] = []

afterEach(async () => {
  for (const house of open.splice(0)) await house.close()
})

function opened(over?: ConstructorParameters<typeof Journaled>[1]): Journaled {
  const house = new Journaled(join(folder, crypto.randomUUID()), over)
  open.push(house)
  return house
}

describe('a Change', () => {
  test('is nowhere but in the journal when it is acknowledged, and everywhere when asked for', async () => {
    const house = opened()
    const writer = await house.writer()
    await writer.write('one')
    expect(storedKeys(house.dataDir, writer.did)).toEqual([])
    expect(framesOf(house)).toHaveLength(1)
    expect(await writer.seen()).toEqual(['one'])
    expect(storedKeys(house.dataDir, writer.did)).toEqual(['one'])
  })

  test('is in no database before it is acknowledged', async () => {
    const house = opened()
    const writer = await house.writer()
    const written = writer.write('one')
    expect(await writer.seen()).toEqual([])
    expect(framesOf(house)).toEqual([])
    await written
    expect(await writer.seen()).toEqual(['one'])
  })

  test('comes to its database by itself, before long', async () => {
    const house = opened()
    const writer = await house.writer()
    await writer.write('one')
    const stored = () => (storedKeys(house.dataDir, writer.did).length === 1 ? true : undefined)
    await eventually('stored record', stored)
  })

  test('is stored before more than a few wait with it', async () => {
    const house = opened()
    const writer = await house.writer()
    for (let at = 0; at < 130; at++) await writer.write(`k${at}`)
    expect(writer.behind.waiting).toBeLessThan(65)
    expect(storedKeys(house.dataDir, writer.did).length).toBeGreaterThan(65)
  })

  test('too large for the files is in its database when it is acknowledged', async () => {
    const house = opened()
    const writer = await house.writer()
    await writer.write('one')
    await writer.write('two', 'x'.repeat(1024 * 1024))
    await writer.write('three')
    expect(framesOf(house)).toHaveLength(2)
    expect(storedKeys(house.dataDir, writer.did)).toEqual(['one', 'two'])
    expect(await keysAfterKill(house)).toEqual([['one', 'two', 'three']])
  })
})

test('what comes together is written as one', async () => {
  const house = opened()
  const writers = [await house.writer(), await house.writer(), await house.writer()]
  await Promise.all(writers.map((writer) => writer.write('one')))
  expect(framesOf(house)).toHaveLength(1)
  // More than a frame may hold is written as several.
  await Promise.all(writers.map((writer) => writer.write('two', 'x'.repeat(300_000))))
  expect(framesOf(house)).toHaveLength(3)
})

test.each(['full', 'normal'] as const)(
  '%s: killed at any moment, with files that take turns, nothing acknowledged is lost',
  async (synchronous) => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(3), { minLength: 1, maxLength: 40 }), async (steps) => {
        // So small that they take turns every few writes.
        const house = opened({ journalBytes: 4 * 4096, synchronous })
        const writers = [await house.writer(), await house.writer()]
        for (const [at, step] of steps.entries()) {
          const [writer, other] = at % 2 === 0 ? writers : writers.toReversed()
          if (step === 0) await writer?.seen()
          else if (step === 1) await writer?.reopen()
          else await Promise.all([writer?.write(`k${at}`), step === 3 && other?.write(`k${at}`)])
        }
        const expected = writers.map(({ keys }) => keys)
        expect(await keysAfterKill(house)).toEqual(expected)
        for (const { behind } of writers) await behind.close()
        expect(writers.map(({ did }) => storedKeys(house.dataDir, did))).toEqual(expected)
      }),
      { numRuns: 12 },
    )
  },
  60_000,
)

describe('a database that refuses a Change', () => {
  test('keeps its readers and writers out, and nobody else', async () => {
    const house = opened()
    const [writer, neighbour] = [await house.writer(), await house.writer()]
    await writer.write('one')
    writer.refuse('two')
    await Promise.all([writer.write('two'), neighbour.write('two')])
    expect(await failureOf(writer.seen())).toMatchObject({ message: 'refused' })
    expect(await failureOf(writer.behind.run([]))).toMatchObject({ message: 'refused' })
    expect(await neighbour.seen()).toEqual(['two'])
    writer.accept()
    expect(await writer.seen()).toEqual(['one', 'two'])
  })

  test('is given no more once many wait', async () => {
    const house = opened()
    const writer = await house.writer()
    await writer.write('k')
    writer.refuse('k0')
    for (let at = 0; at < 63; at++) await writer.write(`k${at}`)
    const change = writer.change('late')
    const failure = await failureOf(house.journal.store(writer.behind, [change]))
    expect(failure).toMatchObject({ message: 'refused' })
    writer.accept()
    expect(await writer.seen()).toEqual(writer.keys)
    await house.journal.store(writer.behind, [change])
    expect(await writer.seen()).toEqual([...writer.keys, 'late'])
  })

  test('does not hold up the journal: its Changes wait in a file beside it', async () => {
    const house = opened({ journalBytes: 4 * 4096 })
    const [writer, neighbour] = [await house.writer(), await house.writer()]
    writer.refuse('two')
    await writer.write('one')
    await writer.write('two')
    for (let at = 0; at < 20; at++) await neighbour.write(`k${at}`)
    expect(readdirSync(dirname(writer.database))).toContain('unstored.json')
    expect(house.log.join('\n')).toContain('actor.changes.unstored')
    expect(await failureOf(writer.seen())).toMatchObject({
      message: expect.stringContaining('could not be stored'),
    })
    expect(await failureOf(openActor(house.dataDir, writer.did))).toMatchObject({
      message: 'refused',
    })
    writer.accept()
    await writer.reopen()
    expect(await writer.seen()).toEqual(['one', 'two'])
    expect(readdirSync(dirname(writer.database))).not.toContain('unstored.json')
    await writer.write('three')
    expect(await keysAfterKill(house)).toEqual([['one', 'two', 'three'], neighbour.keys])
  })
})

test.each(['settled', 'closed'] as const)(
  'what came at the moment of putting aside is put there, too, once %s',
  async (how) => {
    const house = opened()
    const writer = await house.writer()
    writer.refuse('a')
    const later = (rkey: string) => {
      const { did } = writer
      writer.behind.later(changesText({ did, changes: [writer.change(rkey)] }), 1)
    }
    later('a')
    writer.behind.putAside()
    later('b')
    if (how === 'settled') writer.behind.settle()
    else await writer.behind.close()
    writer.accept()
    writer.behind = await openActor(house.dataDir, writer.did)
    expect(await writer.seen()).toEqual(['a', 'b'])
  },
)

test('nobody writes after what was put aside', async () => {
  const house = opened({ journalBytes: 4 * 4096 })
  const [writer, neighbour] = [await house.writer(), await house.writer()]
  writer.refuse('k0')
  await writer.write('k0')
  for (let at = 0; !house.log.join('').includes('actor.changes.unstored'); at++) {
    await Promise.all([
      neighbour.write(`k${at}`),
      writer.write(`late-${at}`).catch(() => undefined),
    ])
    await neighbour.seen()
    if (at > 40) throw new Error('nothing was put aside')
  }
  const change = writer.change('refused')
  const failure = await failureOf(house.journal.store(writer.behind, [change]))
  expect(failure).toMatchObject({ message: expect.stringContaining('could not be stored') })
  for (let at = 100; at < 120; at++) await neighbour.write(`k${at}`)
  writer.accept()
  await writer.reopen()
  expect(await writer.seen()).toEqual(writer.keys)
  expect(await keysAfterKill(house)).toEqual([writer.keys, neighbour.keys])
})

describe('wiped', () => {
  test('the files hold nothing, and the databases everything', async () => {
    const house = opened()
    const writers = [await house.writer(), await house.writer()]
    for (const writer of writers) await writer.write('one', 'my secret')
    const content = Buffer.from(put('my secret', 1).put.content).toString('base64')
    expect(journalBytes(house.dataDir).includes(content)).toBeTrue()
    house.journal.wipe()
    expect(journalBytes(house.dataDir).every((byte) => byte === 0)).toBeTrue()
    for (const { did } of writers) expect(storedKeys(house.dataDir, did)).toEqual(['one'])
    for (const writer of writers) await writer.write('two')
    expect(await keysAfterKill(house)).toEqual(writers.map(({ keys }) => keys))
  })

  test('they hold nothing of an actor that is gone', async () => {
    const house = opened()
    const [writer, neighbour] = [await house.writer(), await house.writer()]
    await Promise.all([writer.write('one'), neighbour.write('one')])
    writer.behind.drop()
    await writer.behind.close()
    removeActorFolder(house.dataDir, writer.did)
    house.journal.wipe()
    expect(journalBytes(house.dataDir).includes(writer.did)).toBeFalse()
    expect(existsSync(dirname(writer.database))).toBeFalse()
    expect(await neighbour.seen()).toEqual(['one'])
  })
})

test('closed, the files are gone and the databases complete', async () => {
  const house = opened()
  const writer = await house.writer()
  await writer.write('one')
  house.journal.close()
  expect(readdirSync(join(house.dataDir, 'journal'))).toEqual([])
  expect(storedKeys(house.dataDir, writer.did)).toEqual(['one'])
})

test.skipIf(process.platform !== 'linux')(
  'where the journal cannot be written nothing more is acknowledged',
  async () => {
    const dataDir = join(folder, crypto.randomUUID())
    const script = new URL('./lost-journal.ts', import.meta.url).pathname
    const { stdout, stderr, exited } = Bun.spawn(['bun', script, dataDir], { stderr: 'pipe' })
    expect(await exited).toBe(0)
    const [two, three, seen, log] = (await stdout.text()).split('\n')
    expect([two, three]).toEqual([
      expect.stringMatching(/^two: .*EBADF/),
      expect.stringMatching(/^three: .*see the log/),
    ])
    expect(seen).toBe('one')
    expect(log).toContain('journal.lost')
    // Thrown outside of any request, so that a shard's thread ends.
    expect(await stderr.text()).toContain('EBADF')
    await recovered(dataDir)
    const [did] = await actorsIn(dataDir)
    expect(storedKeys(dataDir, parseDid(did ?? ''))).toEqual(['one'])
  },
)

test('a journal that an unclean end left is not written over', async () => {
  const house = opened()
  const writer = await house.writer()
  await writer.write('one')
  expect(() => new Journaled(house.dataDir)).toThrow('EEXIST')
  expect(await keysAfterKill(house)).toEqual([['one']])
})

async function actorsIn(dataDir: string): Promise<string[]> {
  const paths = await Array.fromAsync(new Bun.Glob('actors/*/*/stratos.sqlite').scan(dataDir))
  return paths.map((path) => basename(dirname(path)))
}

/** What a start after a kill at this moment finds, writer by writer. */
async function keysAfterKill(house: Journaled): Promise<string[][]> {
  const copy = house.copy()
  await recovered(copy)
  const keys = house.writers.map(({ did }) => storedKeys(copy, did))
  rmSync(copy, { recursive: true })
  return keys
}

function framesOf(house: Journaled): readonly Uint8Array[] {
  return readJournalFile(join(house.dataDir, 'journal', 'shard-0.a'))?.bodies ?? []
}
