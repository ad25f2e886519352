import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { JournalFile, readJournalFile } from '../../src/store/journal-file.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
const bytesMax = 256 * 1024
const pageBytes = 4096
let path: string
let file: JournalFile

beforeEach(() => {
  path = join(folder, crypto.randomUUID())
  file = new JournalFile(path, bytesMax)
})
afterEach(() => file.close())

describe('what does not count', () => {
  test('a file that nothing was written to, or that was wiped', () => {
    expect(read()).toBeUndefined()
    file.begin(1)
    file.append(body('one'))
    file.wipe()
    expect(read()).toBeUndefined()
    expect(readFileSync(path).every((byte) => byte === 0)).toBeTrue()
  })

  test('what an earlier use left behind the last frame', () => {
    file.begin(1)
    for (const text of ['a', 'b', 'c']) file.append(body(text))
    file.begin(2)
    expect(read()).toEqual({ order: 1, texts: ['a', 'b', 'c'] })
    file.append(body('d'))
    expect(read()).toEqual({ order: 2, texts: ['d'] })
  })

  test('a frame in which any byte is another, and all after it', () => {
    file.begin(1)
    for (const text of ['a', 'b', 'c']) file.append(body(text))
    const whole = readFileSync(path)
    for (let at = 0; at < 60; at++) {
      const bytes = Buffer.from(whole)
      bytes[pageBytes + at] = (bytes[pageBytes + at] ?? 0) ^ 1
      writeFileSync(path, bytes)
      expect(read()?.texts).toEqual(['a'])
    }
  })

  test('a frame that a record pretends to be', () => {
    // Somebody who knows all but the secret writes what looks like the next frame of a later use.
    file.begin(1)
    file.append(body('a'))
    const frame = readFileSync(path).subarray(0, pageBytes)
    frame.writeUInt32LE(1, 12)
    frame.fill(0, 28, 44)
    frame.writeBigUInt64LE(Bun.hash.xxHash64(frame.subarray(8)))
    const forged = Buffer.alloc(3 * pageBytes - 100)
    frame.copy(forged, pageBytes - 44)
    file.begin(1)
    file.append(forged)
    expect(readFileSync(path).subarray(pageBytes, 2 * pageBytes)).toEqual(frame)
    file.begin(1)
    file.append(body('b'))
    expect(read()?.texts).toEqual(['b'])
  })
})

test('a file that is there already is left alone', () => {
  file.begin(1)
  file.append(body('a'))
  expect(() => new JournalFile(path, bytesMax)).toThrow('EEXIST')
  expect(read()?.texts).toEqual(['a'])
})

test('a file has its full size and its mode from the start, and keeps them', () => {
  file.begin(1)
  const before = statSync(path)
  expect([before.size, before.mode & 0o777]).toEqual([bytesMax, 0o600])
  while (file.fits(body('x'))) file.append(body('x'))
  expect(() => file.append(body('x'))).toThrow('fits')
  expect(statSync(path).size).toBe(bytesMax)
  expect(read()?.texts).toHaveLength(bytesMax / pageBytes)
})

test('after any uses, and torn at any place, it gives a first part of the last use', () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 12_000 }), { maxLength: 12 })
  const uses = fc.array(sizes, { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(uses, fc.nat(), fc.nat(), (uses, tornFrom, keep) => {
      file.wipe()
      let before = readFileSync(path)
      let texts: string[] = []
      for (const [order, sizes] of uses.entries()) {
        file.begin(order + 1)
        const written: string[] = []
        for (const [index, size] of sizes.entries()) {
          before = readFileSync(path)
          const text = `${order}.${index} `.padEnd(size, 'x')
          if (!file.fits(body(text))) break
          file.append(body(text))
          written.push(text)
        }
        if (written.length > 0) texts = written
      }
      expect(read()?.texts ?? []).toEqual(texts)
      // Of the last frame some sectors did not reach the disk.
      const after = readFileSync(path)
      const torn = Buffer.from(after)
      for (let at = 0; at < after.length; at += 512) {
        const lost = ((at / 512) * 7 + tornFrom) % 3 === keep % 3
        if (lost) before.copy(torn, at, at, at + 512)
      }
      writeFileSync(path, torn)
      const left = read()?.texts ?? []
      const whole = torn.equals(after)
      if (whole) expect(left).toEqual(texts)
      else if (texts.length > 1) expect(left).toEqual(texts.slice(0, -1))
      writeFileSync(path, after)
    }),
    { numRuns: 100 },
  )
})

function body(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

function read(): { order: number; texts: string[] } | undefined {
  const use = readJournalFile(path)
  if (use === undefined) return undefined
  return { order: use.order, texts: use.bodies.map((bytes) => new TextDecoder().decode(bytes)) }
}
