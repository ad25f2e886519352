import { assert } from '../lib/assert.ts'
import type { Brand } from './syntax.ts'

/** Text of a CID: version 1, DAG-CBOR or raw, SHA-256, base32 in lower case; 59 characters. */
export type Cid = Brand<string, 'Cid'>
/** The same in 36 bytes: version, codec, hash function, hash length, hash. */
export type CidBytes = Brand<Uint8Array, 'CidBytes'>

/** The CID of a DAG-CBOR block: a record, a commit, a tree node. */
export function cidForCbor(bytes: Uint8Array): CidBytes {
  return hashed(bytes, codecCbor)
}

/** The CID of a blob. */
export function cidForRaw(bytes: Uint8Array): CidBytes {
  return hashed(bytes, codecRaw)
}

/** The CID of a blob whose SHA-256 is known. */
export function cidForHash(hash: Uint8Array): CidBytes {
  assert(hash.length === sha256Length, 'a SHA-256 has 32 bytes')
  return headed(hash, codecRaw)
}

export function cidToString(cid: CidBytes): Cid {
  const chars = Buffer.allocUnsafe(cidCharLength)
  chars[0] = 0x62
  let length = 1
  let bits = 0
  let held = 0
  for (let index = 0; index < cidByteLength; index++) {
    held = (held << 8) | (cid[index] ?? 0)
    bits += 8
    while (bits >= 5) {
      bits -= 5
      chars[length++] = codes[(held >> bits) & 0x1f] ?? 0
    }
    held &= 0x1f
  }
  chars[length] = codes[(held << (5 - bits)) & 0x1f] ?? 0
  const text = chars.toString('latin1')
  assert(isCid(text), 'the bytes are a CID')
  return text
}

export function cidToBytes(cid: Cid): CidBytes {
  const bytes = new Uint8Array(cidByteLength)
  let bits = 0
  let held = 0
  let length = 0
  for (let index = 1; index < cid.length; index++) {
    held = (held << 5) | (values[cid.charCodeAt(index)] ?? 0)
    bits += 5
    if (bits < 8) continue
    bits -= 8
    bytes[length++] = held >> bits
    held &= (1 << bits) - 1
  }
  assert(isCidBytes(bytes), 'the text is a CID')
  return bytes
}

/** @throws CidError for any other version, codec, hash or base, and for spare bits that are set */
export function parseCid(text: string): Cid {
  if (isCid(text)) return text
  throw new CidError('a CID must be version 1, DAG-CBOR or raw, SHA-256, in lower-case base32')
}

/** @throws CidError as `parseCid` does */
export function parseCidBytes(bytes: Uint8Array): CidBytes {
  if (isCidBytes(bytes)) return bytes
  throw new CidError('a CID must be 36 bytes: version 1, DAG-CBOR or raw, SHA-256')
}

export function isCid(text: string): text is Cid {
  return cidPattern.test(text)
}

export function isCidBytes(bytes: Uint8Array): bytes is CidBytes {
  return (
    bytes.length === cidByteLength &&
    bytes[0] === 1 &&
    (bytes[1] === codecCbor || bytes[1] === codecRaw) &&
    bytes[2] === sha256 &&
    bytes[3] === sha256Length
  )
}

/** Whether the CID names a blob and not a DAG-CBOR block. */
export function isRawCid(cid: Cid): boolean {
  return cid.charAt(3) === 'k'
}

export function isRawCidBytes(cid: CidBytes): boolean {
  return cid[1] === codecRaw
}

export function equalCids(a: Uint8Array, b: Uint8Array): boolean {
  for (let index = cidByteLength - 1; index >= 0; index--) {
    if (a[index] !== b[index]) return false
  }
  return a.length === b.length
}

/** Whether `bytes` are what `cid` names. */
export function cidMatches(cid: CidBytes, bytes: Uint8Array): boolean {
  const hash = new Uint8Array(sha256Length)
  Bun.SHA256.hash(bytes, hash)
  for (let index = 0; index < sha256Length; index++) {
    if (cid[cidHeadLength + index] !== hash[index]) return false
  }
  return true
}

export class CidError extends Error {
  override readonly name = 'CidError'
}

export const cidByteLength = 36
const cidHeadLength = 4
const codecCbor = 0x71
const codecRaw = 0x55
const sha256 = 0x12
const sha256Length = 0x20
/** The letter `b` for base32, then 58 characters of five bits. */
const cidCharLength = 59
const alphabet = 'abcdefghijklmnopqrstuvwxyz234567'
const codes = Uint8Array.from(alphabet, (character) => character.charCodeAt(0))
const values = new Uint8Array(128)
for (const [value, code] of codes.entries()) values[code] = value

/** The four bytes of the header fill six characters and two bits of the seventh; the last
 * character carries three bits of the hash and two spare ones, which must be zero. */
const cidPattern = /^baf[yk]rei[a-h][a-z2-7]{50}[aeimquy4]$/

function hashed(bytes: Uint8Array, codec: number): CidBytes {
  const hash = new Uint8Array(sha256Length)
  Bun.SHA256.hash(bytes, hash)
  return headed(hash, codec)
}

function headed(hash: Uint8Array, codec: number): CidBytes {
  const cid = new Uint8Array(cidByteLength)
  cid[0] = 1
  cid[1] = codec
  cid[2] = sha256
  cid[3] = sha256Length
  // A view on the CID instead of this copy would cost 130 bytes of heap for as long as it lives.
  cid.set(hash, cidHeadLength)
  assert(isCidBytes(cid), 'the header is a CID header')
  return cid
}
