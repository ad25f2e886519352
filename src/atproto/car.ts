import { type CidBytes, CidError, cidByteLength, parseCidBytes } from './cid.ts'

interface CarBlock {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
}

/**
 * The start of a CAR with one root.
 * @see https://ipld.io/specs/transport/car/carv1/
 */
export function carHeader(root: CidBytes): Uint8Array {
  const bytes = new Uint8Array(carHeaderLength)
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
export function encodeCar(root: CidBytes, blocks: Iterable<CarBlock>): Uint8Array<ArrayBuffer> {
  const parts = [carHeader(root)]
  for (const { cid, bytes } of blocks) parts.push(carBlock(cid, bytes))
  return new Uint8Array(Bun.concatArrayBuffers(parts))
}

/**
 * The root that a CAR names, a copy, of its first `carHeaderLength` bytes. Version 1 with one root has one
 * canonical form, so that whatever differs from it is refused.
 * @throws CarError
 */
export function readCarHeader(bytes: Uint8Array): CidBytes {
  const root = parseCidBytes(new Uint8Array(readCid(bytes.subarray(headerStart.length), 0)))
  if (Buffer.compare(bytes, carHeader(root)) !== 0) {
    throw new CarError('a CAR must be of version 1 with one root')
  }
  return root
}

/** Where the content of a section starts and ends, and its CID, a view. */
export interface CarSection {
  readonly cid: CidBytes
  readonly start: number
  readonly end: number
}

/**
 * @param head the first `carSectionHeadBytesMax` bytes of the section, or as many as there are
 * @param at where the section starts, which the answer counts from
 * @throws CarError
 */
export function readCarSection(head: Uint8Array, at: number): CarSection {
  let length = 0
  for (let index = 0; index < varintBytesMax; index++) {
    const byte = head[index]
    if (byte === undefined) throw new CarError(`a length is cut (byte ${at})`)
    length |= (byte & 0x7f) << (7 * index)
    if (byte >= 0x80) continue
    if (byte === 0 && index > 0) throw new CarError(`a length is not shortest (byte ${at})`)
    if (length < cidByteLength) throw new CarError(`a block is shorter than a CID (byte ${at})`)
    const cid = readCid(head.subarray(index + 1), at + index + 1)
    const cidAt = at + index + 1
    return { cid, start: cidAt + cidByteLength, end: cidAt + length }
  }
  throw new CarError(`a length is too big (byte ${at})`)
}

export class CarError extends Error {
  override readonly name = 'CarError'
}

/** The length 58, then `{roots: [link], version: 1}` up to the CID, and what follows the CID. */
const headerStart = Uint8Array.fromHex('3aa265726f6f747381d82a582500')
const headerEnd = Uint8Array.fromHex('6776657273696f6e01')
export const carHeaderLength = headerStart.length + cidByteLength + headerEnd.length
/** 28 bits of length, far more than any block. */
const varintBytesMax = 4
export const carSectionHeadBytesMax = varintBytesMax + cidByteLength

function readCid(bytes: Uint8Array, at: number): CidBytes {
  try {
    return parseCidBytes(bytes.subarray(0, cidByteLength))
  } catch (cause) {
    if (!(cause instanceof CidError)) throw cause
    throw new CarError(`${cause.message} (byte ${at})`, { cause })
  }
}

function varintLength(value: number): number {
  let length = 1
  for (let left = value >>> 7; left > 0; left >>>= 7) length++
  return length
}
