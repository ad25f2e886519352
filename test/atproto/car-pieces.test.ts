import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { carHeaderLength, encodeCar } from '../../src/atproto/car.ts'
import { CarPieces } from '../../src/atproto/car-pieces.ts'
import { cidByteLength, cidForCbor } from '../../src/atproto/cid.ts'

const root = cidForCbor(new Uint8Array([1]))
/** Where a length needs one byte more, and around the size of a piece. */
const edges = [0, 1, 91, 92, 463, 464, 1_000, 16_347, 16_348, 40_000]
const block = fc
  .oneof(fc.constantFrom(...edges), fc.nat(2_000))
  .chain((length) => fc.tuple(fc.constant(length), fc.nat(255)))
  .map(([length, byte]) => new Uint8Array(length).fill(byte))

test('the pieces are the CAR, each of its size where no block is larger, and of its own', () => {
  const pieceSizes = fc.oneof(fc.integer({ min: carHeaderLength, max: 600 }), fc.nat(20_000))
  fc.assert(
    fc.property(fc.array(block, { maxLength: 30 }), pieceSizes, (contents, pieceBytes) => {
      const blocks = contents.map((bytes) => ({ cid: cidForCbor(bytes), bytes }))
      const car = new CarPieces(root, pieceBytes)
      const pieces: Uint8Array[] = []
      for (const { cid, bytes } of blocks) {
        car.put(cid, bytes)
        for (let piece = car.next(); piece !== undefined; piece = car.next()) pieces.push(piece)
      }
      pieces.push(car.rest())
      const all = new Uint8Array(Bun.concatArrayBuffers(pieces))
      expect(Buffer.compare(all, encodeCar(root, blocks))).toBe(0)
      const longest = Math.max(
        carHeaderLength,
        ...contents.map(({ length }) => length + cidByteLength + 4),
      )
      for (const { length } of pieces) {
        expect(length).toBeWithin(1, Math.max(pieceBytes, longest) + 1)
      }
      expect(new Set(pieces.map(({ buffer }) => buffer)).size).toBe(pieces.length)
    }),
    { numRuns: 200 },
  )
})
