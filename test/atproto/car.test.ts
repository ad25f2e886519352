import { describe, expect, test } from 'bun:test'
import { readCarWithRoot } from '@atproto/repo'
import { CarReader, CarWriter } from '@ipld/car'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import { CarError, carBlock, carHeader, encodeCar } from '../../src/atproto/car.ts'
import { type CarIndex, type CarLimits, indexCar } from '../../src/atproto/car-index.ts'
import { cidForCbor, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { encode } from '../../src/atproto/cbor.ts'
import { MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'

const limits = { carBytesMax: 100_000, blockBytesMax: 10_000, blocksMax: 50 }
const blocks = [1, 'text', { a: 1 }].map((value) => block(encode(value)))
const root = cidForCbor(encode(1))
const car = encodeCar(root, blocks)

describe('a CAR is refused', () => {
  const header = carHeader(root)
  const section = carBlock(root, encode(1))

  test.each<[string, Uint8Array]>([
    ['without bytes', new Uint8Array()],
    ['with half a header', header.subarray(0, 30)],
    ['without roots', framed({ roots: [], version: 1 })],
    ['with two roots', framed({ roots: [link(root), link(root)], version: 1 })],
    ['of version 2', framed({ roots: [link(root)], version: 2 })],
    ['with more in the header', framed({ roots: [link(root)], version: 1, more: 1 })],
    ['with a root of another codec', header.with(15, 0x70)],
    ['with a root that is no DAG-CBOR', header.with(15, 0x55)],
    ['with half a block', car.subarray(0, -1)],
    ['with a byte behind', joined(car, new Uint8Array(1))],
    ['with a block of no bytes', joined(header, new Uint8Array([0]))],
    ['with a block shorter than a CID', joined(header, new Uint8Array([1, 1]))],
    ['with a length that is not shortest', joined(header, lengthOfTwo(section))],
    ['with a length of ten bytes', joined(header, new Uint8Array(10).fill(0xff))],
    ['with half a length', joined(header, new Uint8Array([0x80]))],
    ['with a block twice', joined(header, section, section)],
    ['with a block that is not its CID', joined(header, section.with(section.length - 1, 2))],
    ['with a CID of another codec', joined(header, section.with(2, 0x70))],
    ['with a CID of version 0', joined(header, section.with(1, 0x12))],
  ])('%s', (_, bytes) => {
    expect(() => read(bytes, limits)).toThrow(CarError)
  })

  test('over its limits', () => {
    const length = car.length
    expect(() => read(car, { ...limits, carBytesMax: length - 1 })).toThrow('over the limit')
    expect(() => read(car, { ...limits, blockBytesMax: 4 })).toThrow('over the limit')
    expect(() => read(car, { ...limits, blocksMax: 2 })).toThrow('more than 2')
    expect(() => read(car, { carBytesMax: length, blockBytesMax: 5, blocksMax: 3 })).not.toThrow()
  })

  test('or read, whatever byte of it was changed', () => {
    fc.assert(
      fc.property(fc.nat(car.length - 1), fc.nat(255), (at, byte) => {
        try {
          read(car.with(at, byte), limits)
        } catch (error) {
          expect(error).toBeInstanceOf(CarError)
        }
      }),
      { numRuns: 500 },
    )
  })

  test('when it is garbage behind a header', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (bytes) => {
        expect(() => read(joined(header, bytes), limits)).toThrow(CarError)
      }),
    )
  })
})

const contents = fc.uniqueArray(fc.uint8Array({ maxLength: 400 }), {
  maxLength: 20,
  selector: (bytes) => bytes.toHex(),
})

test('what is written is read', () => {
  fc.assert(
    fc.property(contents, (contents) => {
      const written = contents.map((bytes, index) => block(bytes, index % 2 === 0))
      const index = read(encodeCar(root, written), limits)
      expect(cidToString(index.root)).toBe(cidToString(root))
      expect(index.count).toBe(written.length)
      for (const { cid, bytes } of written) {
        expect(equalBytes(index.block(cid), bytes)).toBeTrue()
      }
      expect(index.block(cidForRaw(new Uint8Array(500)))).toBeUndefined()
    }),
  )
})

test('what is written is read by @ipld/car and @atproto/repo', async () => {
  await fc.assert(
    fc.asyncProperty(contents, async (contents) => {
      const written = contents.map((bytes) => block(bytes))
      const bytes = encodeCar(root, written)
      const reader = await CarReader.fromBytes(bytes)
      expect(String(await reader.getRoots())).toBe(cidToString(root))
      const seen = await Array.fromAsync(reader.blocks())
      expect(seen.map(({ cid }) => String(cid))).toEqual(written.map(({ cid }) => cidToString(cid)))
      const theirs = await readCarWithRoot(bytes)
      expect([String(theirs.root), theirs.blocks.size]).toEqual([cidToString(root), written.length])
    }),
    { numRuns: 30 },
  )
})

test('what @ipld/car writes is read, and has the same bytes', async () => {
  const { writer, out } = CarWriter.create([CID.decode(root)])
  const collected = Array.fromAsync(out)
  for (const { cid, bytes } of blocks) await writer.put({ cid: CID.decode(cid), bytes })
  await writer.close()
  const theirs = joined(...(await collected))
  expect(Buffer.compare(theirs, car)).toBe(0)
  expect(read(theirs, limits).count).toBe(blocks.length)
})

test('the parts of a CAR are the whole', () => {
  const parts = blocks.map(({ cid, bytes }) => carBlock(cid, bytes))
  expect(equalBytes(joined(carHeader(root), ...parts), car)).toBeTrue()
})

test('a long block has a length of three bytes', () => {
  const long = block(new Uint8Array(20_000))
  const index = read(encodeCar(root, [long]), { ...limits, blockBytesMax: 20_000 })
  expect(equalBytes(index.block(long.cid), long.bytes)).toBeTrue()
})

function read(car: Uint8Array, limits: CarLimits): CarIndex {
  return runSteps(indexCar(new MemorySource(car), limits))
}

function block(bytes: Uint8Array, raw = false) {
  return { cid: raw ? cidForRaw(bytes) : cidForCbor(bytes), bytes }
}

function link(cid: typeof root) {
  return { $link: cidToString(cid) }
}

function framed(header: Parameters<typeof encode>[0]): Uint8Array {
  const bytes = encode(header)
  return joined(new Uint8Array([bytes.length]), bytes)
}

function lengthOfTwo(section: Uint8Array): Uint8Array {
  return joined(new Uint8Array([(section[0] ?? 0) | 0x80, 0]), section.subarray(1))
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Bun.concatArrayBuffers(parts))
}

function equalBytes(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0
}
