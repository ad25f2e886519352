import { CborError, decode, encode } from '../atproto/cbor.ts'
import { type CidBytes, cidMatches, cidToString } from '../atproto/cid.ts'
import { type DataObject, isDataObject } from '../atproto/data.ts'
import { type Did, isDid, isNsid, type Nsid, parseRkey, type Rkey } from '../atproto/syntax.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { IndexedOp, IndexEvent } from './event.ts'
import { FrameError, FrameReader } from './frame-reader.ts'

/** How an account stands with its service. */
interface EnrollmentMessage {
  readonly kind: 'enrollment'
  readonly did: Did
  readonly action: 'enroll' | 'unenroll'
  /** Public URL of the service. */
  readonly serviceUrl: string
  readonly boundaries: readonly string[]
  /** ISO 8601. */
  readonly time: string
  readonly seq: number
}

export type StreamMessage =
  | IndexEvent
  | EnrollmentMessage
  /** Everything that happened until some time was sent. */
  | {
      readonly kind: 'heartbeat'
      readonly isBehind: boolean
      /** Milliseconds before it was sent; undefined where the service does not say. */
      readonly ageMs: number | undefined
    }
  /** `OutdatedCursor` of an account is what its `reset` is made of. */
  | {
      readonly kind: 'info'
      readonly name: string
      readonly did: Did | undefined
      readonly seq: number | undefined
    }
  /** The stream ends with it. */
  | { readonly kind: 'error'; readonly error: string; readonly message: string }
  /** Of a later form of the stream: to be passed over. */
  | { readonly kind: 'unknown'; readonly type: string }

/**
 * What a frame of `zone.stratos.sync.subscribeRecords` says. Records keep their bytes, as a part of
 * the frame, and are what their CIDs name.
 * @param service whose stream it is: frames of commits do not say
 * @throws FrameError whatever the bytes are
 * @see protocol.md, section 6
 */
export function decodeFrame(frame: Uint8Array, service: Did): StreamMessage {
  try {
    const [type, start] = readHeader(frame)
    if (type === '#commit') return commit(frame, start, service)
    const body = decode(frame.subarray(start))
    if (!isDataObject(body)) throw new FrameError('a body is no map')
    return message(type, body, service)
  } catch (error) {
    if (error instanceof CborError || error instanceof XrpcError) {
      throw new FrameError(`a frame cannot be read: ${error.message}`, { cause: error })
    }
    throw error
  }
}

/** Whose event a frame is that cannot be read as a whole; undefined where even that cannot. */
export function eventPlace(
  frame: Uint8Array,
): { readonly did: Did; readonly seq: number } | undefined {
  try {
    const [type, start] = readHeader(frame)
    if (type !== '#commit' && type !== '#status') return undefined
    const reader = new FrameReader(frame, start)
    let did: string | undefined
    let seq: number | undefined
    reader.map((key) => {
      if (key === 'did') did = reader.text()
      else if (key === 'seq') seq = reader.unsigned()
      else reader.skip()
    })
    return { did: didOf(did), seq: seqOf(seq) }
  } catch (error) {
    if (error instanceof FrameError || error instanceof CborError) return undefined
    throw error
  }
}

const commitHeader = encode({ op: 1, t: '#commit' })
/** Of one commit. @see lexicon zone.stratos.sync.subscribeRecords */
const opsMax = 200

/** The type, undefined for an error, and where the body begins. */
export function readHeader(frame: Uint8Array): readonly [string | undefined, number] {
  if (commitHeader.every((byte, index) => frame[index] === byte)) {
    return ['#commit', commitHeader.length]
  }
  const reader = new FrameReader(frame)
  reader.skip()
  const header = decode(frame.subarray(0, reader.at))
  const { op, t } = isDataObject(header) ? header : {}
  if (op === -1) return [undefined, reader.at]
  if (op === 1 && typeof t === 'string') return [t, reader.at]
  throw new FrameError('a header names neither a message nor an error')
}

function commit(frame: Uint8Array, start: number, service: Did): IndexEvent {
  const reader = new FrameReader(frame, start)
  let did: string | undefined
  let seq: number | undefined
  let ops: IndexedOp[] | undefined
  reader.map((key) => {
    if (key === 'did') did = reader.text()
    else if (key === 'seq') seq = reader.unsigned()
    else if (key === 'ops') {
      const found: IndexedOp[] = []
      reader.array(() => found.push(readOp(reader, frame)), opsMax)
      ops = found
    } else reader.skip()
  })
  if (!reader.isAtEnd) throw new FrameError('bytes follow the body')
  if (ops === undefined) throw new FrameError('a commit has no operations')
  return { kind: 'commit', service, did: didOf(did), seq: seqOf(seq), ops, frame }
}

function readOp(reader: FrameReader, frame: Uint8Array): IndexedOp {
  let action: string | undefined
  let path: string | undefined
  let cid: CidBytes | undefined
  let content: Uint8Array | undefined
  reader.map((key) => {
    if (key === 'action') action = reader.text()
    else if (key === 'path') path = reader.text()
    else if (key === 'cid') cid = reader.link()
    else {
      const start = reader.at
      reader.skip()
      if (key === 'record') content = frame.subarray(start, reader.at)
    }
  })
  const place = placeOf(path)
  if (action === 'delete') return { action, ...place }
  if (action !== 'create' && action !== 'update') throw new FrameError('an action is unknown')
  if (cid === undefined) throw new FrameError('an operation has no CID')
  // Withheld, or changed since: either way it is not for the index.
  if (content === undefined) return { action: 'delete', ...place }
  if (!cidMatches(cid, content)) throw new FrameError('a record is not what its CID names')
  const record = decode(content)
  if (!isDataObject(record)) throw new FrameError('a record is no map')
  return { action, ...place, cid: cidToString(cid), content, record }
}

function message(type: string | undefined, body: DataObject, service: Did): StreamMessage {
  const { did, seq, path, name, time, action } = body
  switch (type) {
    case undefined:
      return { kind: 'error', error: textOf(body['error']), message: textOf(body['message'] ?? '') }
    case '#status': {
      const { takendown } = body
      if (typeof takendown !== 'boolean') throw new FrameError('a status says nothing')
      const whole = path === undefined
      const place = whole ? undefined : placeOf(textOf(path))
      const shown = place === undefined ? '' : `${place.collection}/${place.rkey}`
      const at = { service, did: didOf(did), seq: seqOf(seq) }
      return { kind: 'status', ...at, path: shown, takendown }
    }
    case '#enrollment': {
      if (action !== 'enroll' && action !== 'unenroll') {
        throw new FrameError('an action is unknown')
      }
      const { boundaries, service: serviceUrl } = body
      if (!Array.isArray(boundaries)) throw new FrameError('an enrollment lists no boundaries')
      return {
        kind: 'enrollment',
        did: didOf(did),
        action,
        serviceUrl: originOf(serviceUrl),
        boundaries: boundaries.map(textOf),
        time: textOf(time),
        seq: numberOf(seq),
      }
    }
    case '#info': {
      if (name === 'Heartbeat') return heartbeat(body)
      const about = did === undefined ? undefined : didOf(did)
      const at = seq === undefined ? undefined : numberOf(seq)
      return { kind: 'info', name: textOf(name), did: about, seq: at }
    }
    default:
      return { kind: 'unknown', type }
  }
}

function heartbeat({ age, behind }: DataObject): StreamMessage {
  const ageMs = age === undefined ? undefined : numberOf(age)
  return { kind: 'heartbeat', isBehind: behind === true, ageMs }
}

function placeOf(path: string | undefined): { readonly collection: Nsid; readonly rkey: Rkey } {
  const slash = path?.indexOf('/') ?? -1
  const collection = path?.slice(0, slash) ?? ''
  if (slash < 0 || !isNsid(collection)) throw new FrameError('a path is not collection and key')
  return { collection, rkey: parseRkey(path?.slice(slash + 1) ?? '') }
}

function didOf(value: unknown): Did {
  if (typeof value !== 'string' || !isDid(value)) throw new FrameError('a DID is none')
  return value
}

/** Of an event; zero would say that the reader has nothing. */
function seqOf(value: unknown): number {
  const seq = numberOf(value)
  if (seq === 0) throw new FrameError('an event has no number')
  return seq
}

function numberOf(value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new FrameError('a number is none, or negative')
}

/** Of a public URL. */
function originOf(value: unknown): string {
  const url = URL.parse(textOf(value))
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return url.origin
  throw new FrameError('a service has no address')
}

function textOf(value: unknown): string {
  if (typeof value === 'string') return value
  throw new FrameError('a text is none')
}
