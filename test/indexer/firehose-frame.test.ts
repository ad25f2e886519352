import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { decodeFirehoseFrame } from '../../src/indexer/firehose-frame.ts'
import { FrameError } from '../../src/indexer/frame-reader.ts'
import { commitFrame, errorFrame, frameOf } from './relay-double.ts'

const path = 'zone.stratos.actor.enrollment/did:web:stratos.test'
const repo = 'did:plc:aliceaaaaaaaaaaaaaaaaaaa'
const frames = [
  commitFrame(1, [{ repo, path }]),
  commitFrame(2, [], { later: [1, { a: null }] }),
  frameOf('#info', { name: 'OutdatedCursor' }),
  errorFrame('FutureCursor'),
]

function expectNamed(bytes: Uint8Array): void {
  try {
    decodeFirehoseFrame(bytes)
  } catch (error) {
    expect(error).toBeInstanceOf(FrameError)
  }
}

test('whatever the bytes are, they are read or refused by name', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), expectNamed))
})

test('a frame with any byte changed, or cut anywhere, is read or refused by name', () => {
  for (const frame of frames) {
    for (let at = 0; at < frame.length; at++) {
      expectNamed(frame.subarray(0, at))
      for (const bit of [0x01, 0x20, 0x80]) {
        const changed = new Uint8Array(frame)
        changed[at] = (frame[at] ?? 0) ^ bit
        expectNamed(changed)
      }
    }
  }
})

test('names of errors and of information that no log should have are left out', () => {
  for (const name of ['a b', 'x'.repeat(61), '{"level":"error"}']) {
    expect(decodeFirehoseFrame(errorFrame(name))).toEqual({ kind: 'error', error: '' })
    expect(decodeFirehoseFrame(frameOf('#info', { name }))).toEqual({ kind: 'info', name: '' })
  }
  expect(decodeFirehoseFrame(errorFrame('FutureCursor'))).toEqual({
    kind: 'error',
    error: 'FutureCursor',
  })
})
