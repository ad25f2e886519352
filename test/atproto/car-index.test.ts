import { expect, test } from 'bun:test'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { CarError, carBlock, carHeader } from '../../src/atproto/car.ts'
import { type CarIndex, indexCar } from '../../src/atproto/car-index.ts'
import { BlockPlaces } from '../../src/atproto/car-places.ts'
import {
  type CidBytes,
  cidForCbor,
  cidForRaw,
  equalCids,
  parseCidBytes,
} from '../../src/atproto/cid.ts'
import { FileSource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'
import { heldBytes } from '../kit/held.ts'
import { temporaryFolder } from '../store/temporary.ts'

const mebibyte = 1024 * 1024
const limits = { carBytesMax: 256 * mebibyte, blockBytesMax: 2 * mebibyte, blocksMax: 1_000_000 }
const folder = temporaryFolder()

test('a block that comes again after many others is refused', () => {
  const path = join(folder, 'again')
  writeCar(path, [...numbered(50_000), contentOf(7)])
  using file = new FileSource(path)
  expect(() => runSteps(indexCar(file, limits))).toThrow(CarError)
  expect(() => runSteps(indexCar(file, limits))).toThrow('comes twice')
})

test('a million blocks are found in a file, with few bytes of memory for each', () => {
  const path = join(folder, 'million')
  writeCar(path, numbered(limits.blocksMax))
  const before = heldBytes()
  using file = new FileSource(path)
  const { index, peakBytes, pauses } = watched(indexCar(file, limits))
  expect(peakBytes - before).toBeLessThan(40 * mebibyte)
  expect(pauses).toBeGreaterThan(file.size / mebibyte)
  expect(index.count).toBe(limits.blocksMax)
  for (let number = 0; number < limits.blocksMax; number += 9973) {
    const content = contentOf(number)
    expect(index.block(cidForCbor(content))).toEqual(content)
    expect(index.block(cidForRaw(content))).toBeUndefined()
  }
  expect(() => runSteps(indexCar(file, { ...limits, blocksMax: 999_999 }))).toThrow('more than')
}, 60_000)

test('blocks whose hashes begin alike are told apart by the CAR', () => {
  const places = new BlockPlaces()
  const cids = Array.from({ length: 500 }, (_, number) => alike(number))
  for (const [at, cid] of cids.entries()) places.add(cid, at + 1)
  for (const [at, cid] of cids.entries()) {
    expect(places.find(cid, (place) => equalCids(cids[place - 1] ?? cid, cid))).toBe(at + 1)
  }
  expect(places.find(alike(500), () => false)).toBeUndefined()
})

test('a file of more than four GiB is refused before it is read', () => {
  const source = {
    size: 2 ** 32,
    read: () => {
      throw new Error('was read')
    },
  }
  const steps = indexCar(source, { ...limits, carBytesMax: Infinity })
  expect(() => runSteps(steps)).toThrow('over the limit')
})

function contentOf(number: number): Uint8Array {
  const content = new Uint8Array([0x1a, 0, 0, 0, 0])
  new DataView(content.buffer).setUint32(1, number)
  return content
}

function* numbered(count: number): Generator<Uint8Array> {
  for (let number = 0; number < count; number++) yield contentOf(number)
}

function writeCar(path: string, contents: Iterable<Uint8Array>): void {
  const file = openSync(path, 'w')
  let parts: Uint8Array[] = [carHeader(cidForCbor(contentOf(0)))]
  for (const content of contents) {
    parts.push(carBlock(cidForCbor(content), content))
    if (parts.length < 10_000) continue
    writeSync(file, new Uint8Array(Bun.concatArrayBuffers(parts)))
    parts = []
  }
  writeSync(file, new Uint8Array(Bun.concatArrayBuffers(parts)))
  closeSync(file)
}

/** A CID whose hash starts with zeros. */
function alike(number: number): CidBytes {
  const bytes = new Uint8Array(36)
  bytes.set([1, 0x71, 0x12, 0x20])
  new DataView(bytes.buffer).setUint32(32, number)
  return parseCidBytes(bytes)
}

/** What is held at the most, of a few looks on the way and one at the end. */
function watched(steps: Generator<number, CarIndex>) {
  let peakBytes = 0
  for (let pauses = 0; ; pauses++) {
    const { done, value } = steps.next()
    if (done === true || pauses % 20 === 0) peakBytes = Math.max(peakBytes, heldBytes())
    if (done === true) return { index: value, peakBytes, pauses }
  }
}
