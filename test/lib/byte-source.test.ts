import { describe, expect, test } from 'bun:test'
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { FileSource, MemorySource, SourceError } from '../../src/lib/byte-source.ts'
import { temporaryFolder } from '../store/temporary.ts'

const folder = temporaryFolder()
const path = join(folder, 'bytes')
const bytes = new Uint8Array(3_000_000)
for (let at = 0; at < bytes.length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 4))
writeFileSync(path, bytes)

describe('a read is refused', () => {
  test('beyond either end', () => {
    using file = new FileSource(path)
    for (const source of [file, new MemorySource(bytes)]) {
      expect(() => source.read(-1, 1)).toThrow('stays within')
      expect(() => source.read(0, -1)).toThrow('stays within')
      expect(() => source.read(bytes.length, 1)).toThrow('stays within')
      expect(() => source.read(bytes.length - 1, 2)).toThrow('stays within')
      expect(source.read(bytes.length, 0)).toHaveLength(0)
    }
  })

  test('of a file that became shorter, as is every read behind it', () => {
    const shrinking = join(folder, 'shrinking')
    writeFileSync(shrinking, bytes.subarray(0, 100_000))
    using file = new FileSource(shrinking)
    expect(file.read(0, 10)).toHaveLength(10)
    truncateSync(shrinking, 50_000)
    expect(() => file.read(60_000, 10)).toThrow(SourceError)
    expect(() => file.read(60_000, 10)).toThrow(SourceError)
    expect(file.read(0, 10)).toHaveLength(10)
  })

  test('of a file that is not there', () => {
    expect(() => new FileSource(join(folder, 'absent'))).toThrow('ENOENT')
  })

  test('after the file was closed', () => {
    const file = new FileSource(path)
    file[Symbol.dispose]()
    expect(() => file.read(0, 1)).toThrow()
  })
})

test('whatever is read in whatever order, a file gives its bytes', () => {
  using file = new FileSource(path)
  const jump = fc.record({ at: fc.nat(bytes.length), length: fc.nat(40_000) })
  const long = fc.record({
    at: fc.nat(1000),
    length: fc.integer({ min: 1_000_000, max: 2_900_000 }),
  })
  fc.assert(
    fc.property(fc.array(fc.oneof(jump, jump, long, fc.nat(70_000))), (reads) => {
      let next = 0
      for (const read of reads) {
        const { at, length } = typeof read === 'number' ? { at: next, length: read } : read
        const fits = Math.min(length, bytes.length - at)
        const found = file.read(at, fits)
        expect(Buffer.compare(found, bytes.subarray(at, at + fits))).toBe(0)
        next = at + fits
      }
    }),
  )
})
