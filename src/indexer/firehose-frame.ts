import { CborError } from '../atproto/cbor.ts'
import { enrollmentCollection } from '../atproto/enrollment.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { readHeader } from './decode.ts'
import { FrameError, FrameReader } from './frame-reader.ts'

export type FirehoseMessage =
  | {
      readonly kind: 'event'
      readonly seq: number
      /** Of the enrollment records that it touches; of most events none. */
      readonly enrollments: readonly EnrollmentOp[]
    }
  | { readonly kind: 'info'; readonly name: string }
  /** The stream ends with it. */
  | { readonly kind: 'error'; readonly error: string }

export interface EnrollmentOp {
  readonly did: Did
  readonly action: 'create' | 'update' | 'delete'
  readonly rkey: string
}

/**
 * What a frame of `com.atproto.sync.subscribeRepos` says of enrollment records. Its blocks are
 * passed over: what a record holds is asked of the service itself.
 * @throws FrameError whatever the bytes are
 * @see https://atproto.com/specs/event-stream
 */
export function decodeFirehoseFrame(frame: Uint8Array): FirehoseMessage {
  if (frame.length > frameBytesMax) throw new FrameError('a frame is too large')
  const [type, start] = headerOf(frame)
  const reader = new FrameReader(frame, start)
  const message = bodyOf(type, reader)
  if (!reader.isAtEnd) throw new FrameError('bytes follow the body')
  return message
}

/** Blocks of one commit have 2 MB at most. */
export const frameBytesMax = 5 * 1024 * 1024
/** Of one commit. @see lexicon com.atproto.sync.subscribeRepos */
const opsMax = 200
const pathPrefix = `${enrollmentCollection}/`

function headerOf(frame: Uint8Array): readonly [string | undefined, number] {
  try {
    return readHeader(frame)
  } catch (error) {
    if (!(error instanceof CborError)) throw error
    throw new FrameError(`a header cannot be read: ${error.message}`, { cause: error })
  }
}

function bodyOf(type: string | undefined, reader: FrameReader): FirehoseMessage {
  if (type === undefined) return { kind: 'error', error: nameIn(reader, 'error') }
  if (type === '#info') return { kind: 'info', name: nameIn(reader, 'name') }
  let seq: number | undefined
  let repo: string | undefined
  let ops: readonly NamedOp[] = []
  reader.map((key) => {
    if (key === 'seq') seq = reader.unsigned()
    else if (type === '#commit' && key === 'repo') repo = reader.text()
    else if (type === '#commit' && key === 'ops') ops = enrollmentOps(reader)
    else reader.skip()
  })
  if (seq === undefined) throw new FrameError('an event has no number')
  if (ops.length === 0) return { kind: 'event', seq, enrollments: [] }
  const did = repo
  if (did === undefined || !isDid(did)) throw new FrameError('a DID is none')
  return { kind: 'event', seq, enrollments: ops.map(({ action, rkey }) => ({ did, action, rkey })) }
}

type NamedOp = Omit<EnrollmentOp, 'did'>

function enrollmentOps(reader: FrameReader): NamedOp[] {
  const found: NamedOp[] = []
  reader.array(() => {
    let action = ''
    let path = ''
    reader.map((key) => {
      if (key === 'action') action = reader.text()
      else if (key === 'path') path = reader.text()
      else reader.skip()
    })
    if (!path.startsWith(pathPrefix)) return
    if (action !== 'create' && action !== 'update' && action !== 'delete') {
      throw new FrameError('an action is unknown')
    }
    found.push({ action, rkey: path.slice(pathPrefix.length) })
  }, opsMax)
  return found
}

/** Of an error or piece of information: one that can be logged, or empty. */
function nameIn(reader: FrameReader, member: string): string {
  let name = ''
  reader.map((key) => {
    if (key === member) name = reader.text()
    else reader.skip()
  })
  return /^\w{1,60}$/.test(name) ? name : ''
}
