import { assert } from '../lib/assert.ts'
import { CborError, decode, encode } from './cbor.ts'
import { type Cid, type CidBytes, cidForCbor, cidToBytes, isRawCid, parseCid } from './cid.ts'
import { type DataObject, type DataValue, isDataObject } from './data.ts'
import { type SigningKey, verifySignature } from './keys.ts'
import { type Did, isDid, isTid, type Tid } from './syntax.ts'

/** @see https://atproto.com/specs/repository#commit-objects */
export interface Commit {
  readonly did: Did
  readonly version: 3
  /** Root of the tree. */
  readonly data: CidBytes
  readonly rev: Tid
  /** Null in all that this service makes. */
  readonly prev: Cid | null
  readonly sig: Uint8Array
}

/** A version 3 commit without `prev`, signed by the user's key. */
export function signCommit(
  input: { readonly did: Did; readonly data: CidBytes; readonly rev: Tid },
  key: SigningKey,
): { cid: CidBytes; bytes: Uint8Array } {
  const { did, data, rev } = input
  const head = encodeHead(did, rev)
  const unsigned = new Uint8Array(head.length + tailLength)
  unsigned.set(head)
  unsigned.set(tailStart, head.length)
  unsigned.set(data, head.length + tailStart.length)
  unsigned.set(tailEnd, unsigned.length - tailEnd.length)
  const bytes = withSig(unsigned, head.length, key.sign(unsigned))
  return { cid: cidForCbor(bytes), bytes }
}

/** Checks form only, not the signature. @throws CommitError */
export function decodeCommit(bytes: Uint8Array): Commit {
  const { did, version, data, rev, prev, sig, ...others } = commitObject(bytes)
  if (Object.keys(others).length > 0) throw new CommitError('a commit has a member too many')
  if (version !== 3) throw new CommitError('a commit must be of version 3')
  if (typeof did !== 'string' || !isDid(did)) throw new CommitError('did must be a DID')
  if (typeof rev !== 'string' || !isTid(rev)) throw new CommitError('rev must be a TID')
  const root = link(data, 'data')
  if (isRawCid(root)) throw new CommitError('data must link to a tree')
  const signature = sigOf(sig)
  if (prev === undefined) throw new CommitError('prev must be null or a link')
  return {
    did,
    version,
    data: cidToBytes(root),
    rev,
    prev: prev === null ? null : link(prev, 'prev'),
    sig: signature,
  }
}

/**
 * A commit whose signature is the key's.
 * @throws CommitError for a bad form and for a bad signature
 */
export function verifyCommit(bytes: Uint8Array, didKey: string): Commit {
  const commit = decodeCommit(bytes)
  const { did, rev, sig } = commit
  const unsigned = withoutSig(bytes, encodeHead(did, rev).length)
  if (!verifySignature({ didKey, bytes: unsigned, sig })) {
    throw new CommitError('the signature of the commit is not by this key')
  }
  return commit
}

export class CommitError extends Error {
  override readonly name = 'CommitError'
}

/** Maps of five and six members; only this head and the entry tell the two forms apart. */
const unsignedHead = 0xa5
const signedHead = 0xa6
const sigLength = 64
/** The name `sig` and the head of a byte string of 64. */
const sigEntryHead = [0x63, 0x73, 0x69, 0x67, 0x58, sigLength]
const sigEntryLength = sigEntryHead.length + sigLength

/**
 * What follows the sig, of a commit of ours: `data`, a link whose CID comes between the two parts,
 * `prev`, null, and `version`, 3. Every write makes a commit, and they differ in little.
 */
const tailStart = new Uint8Array([0x64, ...ascii('data'), 0xd8, 0x2a, 0x58, 0x25, 0x00])
const tailEnd = new Uint8Array([0x64, ...ascii('prev'), 0xf6, 0x67, ...ascii('version'), 0x03])
const cidLength = 36
const tailLength = tailStart.length + cidLength + tailEnd.length

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** In canonical order `did` and `rev` stand before `sig`, all else behind it. */
function encodeHead(did: Did, rev: Tid): Uint8Array {
  const head = encode({ did, rev })
  head[0] = unsignedHead
  return head
}

function withSig(unsigned: Uint8Array, place: number, sig: Uint8Array): Uint8Array {
  assert(unsigned[0] === unsignedHead && sig.length === sigLength, 'a commit is signed once')
  const bytes = new Uint8Array(unsigned.length + sigEntryLength)
  bytes.set(unsigned.subarray(0, place))
  bytes[0] = signedHead
  bytes.set(sigEntryHead, place)
  bytes.set(sig, place + sigEntryHead.length)
  bytes.set(unsigned.subarray(place), place + sigEntryLength)
  return bytes
}

function withoutSig(signed: Uint8Array, place: number): Uint8Array {
  const bytes = new Uint8Array(signed.length - sigEntryLength)
  bytes.set(signed.subarray(0, place))
  bytes[0] = unsignedHead
  bytes.set(signed.subarray(place + sigEntryLength), place)
  return bytes
}

function commitObject(bytes: Uint8Array): DataObject {
  let value: DataValue
  try {
    value = decode(bytes)
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    throw new CommitError('a commit must be DAG-CBOR', { cause })
  }
  if (!isDataObject(value)) throw new CommitError('a commit must be a map')
  return value
}

function sigOf(value: DataValue | undefined): Uint8Array {
  const text = isDataObject(value) ? value['$bytes'] : undefined
  const sig = typeof text === 'string' ? Uint8Array.fromBase64(text) : undefined
  if (sig?.length !== sigLength) throw new CommitError('sig must be 64 bytes')
  return sig
}

function link(value: DataValue | undefined, name: string): Cid {
  const text = isDataObject(value) ? value['$link'] : undefined
  if (typeof text !== 'string') throw new CommitError(`${name} must be a link`)
  return parseCid(text)
}
