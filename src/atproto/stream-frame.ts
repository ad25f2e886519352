import { assert } from '../lib/assert.ts'
import { decodeOwn, encode } from './cbor.ts'
import { type Cid, cidToBytes } from './cid.ts'
import { type DataObject, isDataObject } from './data.ts'
import type { Did, Tid } from './syntax.ts'

/** One operation of a commit, as a reader of the stream gets it. */
export interface FrameOp {
  readonly action: 'create' | 'update' | 'delete'
  /** `collection/rkey` */
  readonly path: string
  /** Of the record; none of a delete. */
  readonly cid?: Cid | undefined
  /** DAG-CBOR of the record, where it is sent along. */
  readonly record?: Uint8Array | undefined
}

export interface FrameCommit {
  readonly seq: number
  readonly did: Did
  /** ISO 8601, UTC. */
  readonly time: string
  readonly rev: Tid
  readonly ops: readonly FrameOp[]
}

/**
 * A message of an event stream: a header and a body, both DAG-CBOR. Records go into it as they are
 * stored: nothing is decoded on the way.
 * @see https://atproto.com/specs/event-stream
 */
export function commitFrame({ seq, did, time, rev, ops }: FrameCommit): Uint8Array<ArrayBuffer> {
  const writer = new FrameWriter(did.length + frameRoom(ops))
  writer.bytes(commitHeader)
  writer.head(map, 5)
  writer.text('did').text(did)
  writer.text('ops').head(array, ops.length)
  for (const op of ops) {
    writer.head(map, 2 + (op.cid === undefined ? 0 : 1) + (op.record === undefined ? 0 : 1))
    if (op.cid !== undefined) writer.text('cid').bytes(linkHead).bytes(cidToBytes(op.cid))
    writer.text('path').text(op.path)
    writer.text('action').text(op.action)
    if (op.record !== undefined) writer.text('record').bytes(op.record)
  }
  writer.text('rev').text(rev)
  writer.text('seq').head(unsigned, seq)
  writer.text('time').text(time)
  return writer.written()
}

/** Any other message of the type, such as `#info`. */
export function messageFrame(
  type: '#status' | '#enrollment' | '#info',
  body: DataObject,
): Uint8Array<ArrayBuffer> {
  return joined(headerOf(type), encode(body))
}

/** What a stream ends with when something is wrong. */
export function errorFrame(error: string, message: string): Uint8Array<ArrayBuffer> {
  return joined(errorHeader, encode({ error, message }))
}

/**
 * A frame of this module as JSON: `{"$type": "message", "payload": {"$type": "<nsid>#commit", ...}}`,
 * and of an error `{"$type": "error", "error", "message"}`.
 */
export function frameJson(frame: Uint8Array): string {
  for (const [type, header] of headers) {
    if (!startsWith(frame, header)) continue
    const body = decodeOwn(frame.subarray(header.length))
    assert(isDataObject(body), 'a body is a map')
    if (type === undefined) return JSON.stringify({ $type: 'error', ...body })
    const payload = { $type: `${streamNsid}${type}`, ...body }
    return JSON.stringify({ $type: 'message', payload })
  }
  throw new Error('a frame has a header that is known')
}

function startsWith(bytes: Uint8Array, start: Uint8Array): boolean {
  return start.every((byte, index) => bytes[index] === byte)
}

function joined(header: Uint8Array, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(header.length + body.length)
  bytes.set(header)
  bytes.set(body, header.length)
  return bytes
}

const streamNsid = 'zone.stratos.sync.subscribeRecords'
const types = ['#commit', '#status', '#enrollment', '#info'] as const
const commitHeader = headerOf('#commit')
const errorHeader = encode({ op: -1 })
const headers: readonly (readonly [(typeof types)[number] | undefined, Uint8Array])[] = [
  ...types.map((type) => [type, headerOf(type)] as const),
  [undefined, errorHeader],
]

function headerOf(type: (typeof types)[number]): Uint8Array {
  return encode({ op: 1, t: type })
}

/** Tag 42 and a byte string of 37, of which the first is zero. */
const linkHead = new Uint8Array([0xd8, 0x2a, 0x58, 0x25, 0x00])
const [unsigned, textString, array, map] = [0x00, 0x60, 0x80, 0xa0]

/** More than enough for all but what says how long it is. */
const frameFixedBytes = 512
const opFixedBytes = 128

function frameRoom(ops: readonly FrameOp[]): number {
  let room = frameFixedBytes
  for (const { path, record } of ops) room += opFixedBytes + path.length + (record?.length ?? 0)
  return room
}

/** All texts in a frame are ASCII: DIDs, TIDs, times and paths have no other characters. */
class FrameWriter {
  readonly #bytes: Uint8Array<ArrayBuffer>
  #at = 0

  constructor(room: number) {
    this.#bytes = new Uint8Array(room)
  }

  bytes(bytes: Uint8Array): this {
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
    return this
  }

  text(text: string): this {
    this.head(textString, text.length)
    for (let index = 0; index < text.length; index++) {
      this.#bytes[this.#at++] = text.charCodeAt(index)
    }
    return this
  }

  /** A head with its number in the shortest form. */
  head(major: number, value: number): this {
    const width = value < 24 ? 0 : value < 0x100 ? 1 : value < 0x10000 ? 2 : value < 2 ** 32 ? 4 : 8
    this.#bytes[this.#at++] = width === 0 ? major | value : major | (24 + Math.log2(width))
    let left = value
    for (let index = width - 1; index >= 0; index--) {
      this.#bytes[this.#at + index] = left % 256
      left = Math.floor(left / 256)
    }
    this.#at += width
    return this
  }

  written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#at)
  }
}
