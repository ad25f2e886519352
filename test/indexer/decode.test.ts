import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { encode } from '../../src/atproto/cbor.ts'
import type { DataObject } from '../../src/atproto/data.ts'
import { commitFrame, errorFrame, messageFrame } from '../../src/atproto/stream-frame.ts'
import { parseDid, parseTid } from '../../src/atproto/syntax.ts'
import { decodeFrame, eventPlace, type StreamMessage } from '../../src/indexer/decode.ts'
import { FrameError } from '../../src/indexer/frame-reader.ts'
import { commit, post, put, remove, service } from '../kit/index-event.ts'

const did = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const facts = { did, time: '2026-01-01T00:00:00.000Z', rev: parseTid('3jzfcijpj2z2a') }
const header = encode({ op: 1, t: '#commit' })

describe('a frame is refused', () => {
  const body = { ...facts, seq: 1 }
  const path = 'zone.stratos.feed.post/a'
  const record = put('a', post(['x']))
  const link = { $link: record.cid }
  const bodies: [string, DataObject][] = [
    ['that names no account', { seq: 1, ops: [] }],
    ['whose account is no DID', { ...body, did: 'did:nobody', ops: [] }],
    ['without a number', { ...facts, ops: [] }],
    ['with number 0', { ...body, seq: 0, ops: [] }],
    ['with a number below 0', { ...body, seq: -1, ops: [] }],
    ['without operations', body],
    ['with more operations than a commit has', { ...body, ops: Array(201).fill(0) }],
    ['with an operation that is no map', { ...body, ops: ['a'] }],
    ['with an action that nobody knows', { ...body, ops: [{ action: 'move', path, cid: link }] }],
    ['with a path of one part', { ...body, ops: [{ action: 'delete', path: 'a' }] }],
    ['with a path of three', { ...body, ops: [{ action: 'delete', path: `${path}/b` }] }],
    ['that creates without a CID', { ...body, ops: [{ action: 'create', path }] }],
    ['whose CID is text', { ...body, ops: [{ action: 'create', path, cid: record.cid }] }],
    [
      'with a record that is not what its CID names',
      { ...body, ops: [{ action: 'create', path, cid: link, record: { text: 'forged' } }] },
    ],
  ]
  for (const [what, content] of bodies) {
    test(what, () => {
      expect(() => decodeFrame(joined(header, encode(content)), service)).toThrow(FrameError)
    })
  }

  const others: [string, Uint8Array][] = [
    ['of no bytes', new Uint8Array()],
    ['with a header of another kind', joined(encode({ op: 2 }), encode({}))],
    ['with a header that is no map', joined(encode(7), encode({}))],
    ['with bytes behind it', joined(commitFrame({ ...facts, seq: 1, ops: [] }), encode(1))],
    ['with a member twice', joined(header, Buffer.from('a2637365710163736571020a', 'hex'))],
    ['with a length of 2^60', joined(header, Buffer.from('bb1000000000000000', 'hex'))],
    ['with an endless map', joined(header, Buffer.from('bf', 'hex'))],
    ['that nests a million deep', joined(header, deep(1_000_000))],
    ['of a status that says nothing', messageFrame('#status', { ...facts, seq: 1 })],
    ['of an enrollment without boundaries', messageFrame('#enrollment', { did, action: 'enroll' })],
    ['of an info without a name', messageFrame('#info', {})],
  ]
  for (const [what, frame] of others) {
    test(what, () => {
      expect(() => decodeFrame(frame, service)).toThrow(FrameError)
    })
  }

  test('whatever its bytes are, by the named error', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), isReadOrRefused))
    const bytes = fc.uint8Array({ maxLength: 400 }).map((rest) => joined(header, rest))
    fc.assert(fc.property(bytes, isReadOrRefused))
  })

  test('wherever it is cut, or a byte of it is another', () => {
    const frame = commitFrame({ ...facts, seq: 7, ops: framed(put('a', post(['x'])), remove('b')) })
    for (let end = 0; end < frame.length; end++) {
      expect(() => decodeFrame(frame.subarray(0, end), service)).toThrow(FrameError)
    }
    const change = fc.tuple(fc.nat({ max: frame.length - 1 }), fc.integer({ min: 1, max: 255 }))
    fc.assert(
      fc.property(change, ([at, by]) => {
        isReadOrRefused(frame.map((byte, index) => (index === at ? byte ^ by : byte)))
      }),
    )
  })
})

describe('a frame', () => {
  test('of a commit gives its operations, with the bytes of their records', () => {
    const op = fc.oneof(
      fc
        .record({ text: fc.string({ unit: 'binary' }), at: fc.nat() })
        .map(({ text, at }) =>
          put(`k${at}`, post(['did:web:stratos.test/a'], { text }), at % 2 ? 'create' : 'update'),
        ),
      fc.nat().map((at) => remove(`k${at}`)),
    )
    const content = fc.record({
      seq: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      ops: fc.array(op, { maxLength: 20 }),
    })
    fc.assert(
      fc.property(content, ({ seq, ops }) => {
        const frame = commitFrame({ ...facts, seq, ops: framed(...ops) })
        const { frame: kept, ...event } = eventOf(decodeFrame(frame, service))
        expect(kept).toBe(frame)
        expect(event).toEqual(commit(did, seq, ...ops))
      }),
    )
  })

  test('with a record that was withheld counts as its deletion', () => {
    const { cid } = put('a', post(['x']))
    const path = 'zone.stratos.feed.post/a'
    const frame = commitFrame({ ...facts, seq: 1, ops: [{ action: 'create', path, cid }] })
    expect(eventOf(decodeFrame(frame, service)).ops).toEqual([remove('a')])
  })

  test('of later services may have members that nobody knows', () => {
    const ops = [{ action: 'delete', path: 'zone.stratos.feed.post/a', why: { at: [null, true] } }]
    const body = { ...facts, seq: 1, ops, more: [[{ a: { $bytes: 'AAAA' } }]] }
    const event = eventOf(decodeFrame(joined(header, encode(body)), service))
    expect(event.ops).toEqual([remove('a')])
    const unknown = joined(encode({ op: 1, t: '#later' }), encode({}))
    expect(decodeFrame(unknown, service)).toEqual({ kind: 'unknown', type: '#later' })
  })

  test('of anything else gives what it says', () => {
    const status = { ...facts, seq: 3, takendown: true }
    expect(decodeFrame(messageFrame('#status', status), service)).toEqual({
      kind: 'status',
      service,
      did,
      seq: 3,
      path: '',
      takendown: true,
    })
    const path = 'zone.stratos.feed.post/a'
    expect(decodeFrame(messageFrame('#status', { ...status, path }), service)).toMatchObject({
      path,
    })
    const { time } = facts
    const enrollment = { did, action: 'enroll', boundaries: ['b'], time, seq: 0 } as const
    const told = messageFrame('#enrollment', { ...enrollment, service: 'https://s.test' })
    expect(decodeFrame(told, service)).toEqual({
      ...enrollment,
      kind: 'enrollment',
      serviceUrl: 'https://s.test',
    })
    const info = { kind: 'info', name: 'OutdatedCursor', did, seq: undefined } as const
    expect(decodeFrame(messageFrame('#info', { name: 'OutdatedCursor', did }), service)).toEqual(
      info,
    )
    expect(decodeFrame(errorFrame('FutureCursor', 'no'), service)).toEqual({
      kind: 'error',
      error: 'FutureCursor',
      message: 'no',
    })
  })
})

describe('a heartbeat', () => {
  const told = (body: DataObject) =>
    decodeFrame(messageFrame('#info', { name: 'Heartbeat', ...body }), service)

  test('of an age that is none is refused', () => {
    expect(() => told({ age: 'old' })).toThrow(FrameError)
    expect(() => told({ age: -1 })).toThrow(FrameError)
  })

  test('says how old what it says is, or that something is still to be sent', () => {
    const unsaid = { kind: 'heartbeat', ageMs: undefined } as const
    expect(told({ age: 250 })).toEqual({ kind: 'heartbeat', isBehind: false, ageMs: 250 })
    expect(told({ behind: true })).toEqual({ ...unsaid, isBehind: true })
    expect(told({})).toEqual({ ...unsaid, isBehind: false })
  })
})

test.each(['none', 'ftp://s.test', 'https://\0'])('an enrollment at %j is refused', (address) => {
  const body = { did, action: 'enroll', boundaries: [], time: facts.time, seq: 0 }
  const frame = messageFrame('#enrollment', { ...body, service: address })
  expect(() => decodeFrame(frame, service)).toThrow(FrameError)
})

describe('of an event that cannot be read', () => {
  test('it is known whose it is, unless even that cannot be read', () => {
    const bad = commitFrame({ ...facts, seq: 7, ops: [{ action: 'delete', path: 'nowhere' }] })
    expect(() => decodeFrame(bad, service)).toThrow(FrameError)
    expect(eventPlace(bad)).toEqual({ did, seq: 7 })
    expect(eventPlace(bad.subarray(0, bad.length - 3))).toBeUndefined()
    expect(eventPlace(commitFrame({ ...facts, seq: 0, ops: [] }))).toBeUndefined()
    expect(eventPlace(messageFrame('#info', { name: 'Heartbeat' }))).toBeUndefined()
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => void eventPlace(bytes)))
  })
})

function isReadOrRefused(bytes: Uint8Array): void {
  try {
    decodeFrame(bytes, service)
  } catch (error) {
    if (!(error instanceof FrameError)) throw error
  }
}

function eventOf(message: StreamMessage) {
  if (message.kind !== 'commit') throw new Error(`a ${message.kind} is no commit`)
  return message
}

function framed(...ops: ReturnType<typeof commit>['ops']) {
  return ops.map((op) => {
    const path = `${op.collection}/${op.rkey}`
    if (op.action === 'delete') return { action: op.action, path }
    return { action: op.action, path, cid: op.cid, record: op.content }
  })
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** `{"a": [[[...`, as deep as the bytes are long. */
function deep(depth: number): Uint8Array {
  return joined(Buffer.from('a16161', 'hex'), new Uint8Array(depth).fill(0x81))
}
