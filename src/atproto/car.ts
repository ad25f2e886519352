import {
  type Cid,
  type CidBytes,
  CidError,
  cidByteLength,
  cidMatches,
  cidToString,
  parseCidBytes,
} from './cid.ts'

export interface CarLimits {
  readonly carBytesMax: number
  readonly blockBytesMax: number
  readonly blocksMax: number
}

interface CarBlock {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
}

/**
 * The start of a CAR with one root.
 * @see https://ipld.io/specs/transport/car/carv1/
 */
export function carHeader(root: CidBytes): Uint8Array {
  const bytes = new Uint8Array(headerLength)
  bytes.set(headerStart)
  bytes.set(root, headerStart.length)
  bytes.set(headerEnd, headerStart.length + cidByteLength)
  return bytes
}

/** One section: length, CID, content. */
export function carBlock(cid: CidBytes, bytes: Uint8Array): Uint8Array {
  const length = cid.length + bytes.length
  const head = varintLength(length)
  const section = new Uint8Array(head + length)
  let left = length
  for (let at = 0; at < head - 1; at++) {
    section[at] = (left & 0x7f) | 0x80
    left >>>= 7
  }
  section[head - 1] = left
  section.set(cid, head)
  section.set(bytes, head + cid.length)
  return section
}

/** A whole CAR in memory: for proofs and single records. Exports stream its parts instead. */
export function encodeCar(root: CidBytes, blocks: Iterable<CarBlock>): Uint8Array {
  const parts = [carHeader(root)]
  for (const { cid, bytes } of blocks) parts.push(carBlock(cid, bytes))
  return new Uint8Array(Bun.concatArrayBuffers(parts))
}

/**
 * The blocks of a CAR, each a view into `car` whose hash was compared with its CID. Exactly one
 * root, which need not be among the blocks; no block twice.
 * @throws CarError whatever the bytes are
 */
export function readCar(
  car: Uint8Array,
  limits: CarLimits,
): { root: Cid; blocks: Map<Cid, Uint8Array> } {
  if (car.length > limits.carBytesMax) {
    throw new CarError(`a CAR of ${car.length} bytes is over the limit of ${limits.carBytesMax}`)
  }
  const root = readHeader(car)
  const blocks = new Map<Cid, Uint8Array>()
  for (let at = headerLength; at < car.length;) {
    const { length, start } = readVarint(car, at)
    const end = start + length
    if (length < cidByteLength || end > car.length)
      throw new CarError(`a block is cut (byte ${at})`)
    if (length - cidByteLength > limits.blockBytesMax) {
      throw new CarError(`a block is over the limit of ${limits.blockBytesMax} bytes (byte ${at})`)
    }
    if (blocks.size >= limits.blocksMax) {
      throw new CarError(`more than ${limits.blocksMax} blocks (byte ${at})`)
    }
    const cid = readCid(car, start)
    const bytes = car.subarray(start + cidByteLength, end)
    const name = cidToString(cid)
    if (!cidMatches(cid, bytes)) throw new CarError(`a block is not what its CID names: ${name}`)
    if (blocks.has(name)) throw new CarError(`a block comes twice: ${name}`)
    blocks.set(name, bytes)
    at = end
  }
  return { root, blocks }
}

export class CarError extends Error {
  override readonly name = 'CarError'
}

/** The length 58, then `{roots: [link], version: 1}` up to the CID, and what follows the CID. */
const headerStart = Uint8Array.fromHex('3aa265726f6f747381d82a582500')
const headerEnd = Uint8Array.fromHex('6776657273696f6e01')
const headerLength = headerStart.length + cidByteLength + headerEnd.length
/** 28 bits of length, far more than any block. */
const varintBytesMax = 4

function readHeader(car: Uint8Array): Cid {
  const cidEnd = headerStart.length + cidByteLength
  const start = Buffer.compare(car.subarray(0, headerStart.length), headerStart)
  const end = Buffer.compare(car.subarray(cidEnd, headerLength), headerEnd)
  if (start !== 0 || end !== 0) throw new CarError('a CAR must be of version 1 with one root')
  return cidToString(readCid(car, headerStart.length))
}

function readCid(car: Uint8Array, at: number): CidBytes {
  try {
    return parseCidBytes(car.subarray(at, at + cidByteLength))
  } catch (cause) {
    if (!(cause instanceof CidError)) throw cause
    throw new CarError(`${cause.message} (byte ${at})`, { cause })
  }
}

function readVarint(car: Uint8Array, at: number): { length: number; start: number } {
  let length = 0
  for (let index = 0; index < varintBytesMax; index++) {
    const byte = car[at + index]
    if (byte === undefined) break
    length |= (byte & 0x7f) << (7 * index)
    if (byte < 0x80) {
      if (byte === 0 && index > 0) throw new CarError(`a length is not shortest (byte ${at})`)
      return { length, start: at + index + 1 }
    }
  }
  throw new CarError(`a length is cut or too big (byte ${at})`)
}

function varintLength(value: number): number {
  let length = 1
  for (let left = value >>> 7; left > 0; left >>>= 7) length++
  return length
}
