import { assert } from '../lib/assert.ts'
import { parseTid, type Tid } from './syntax.ts'

interface TidInput {
  readonly nowMs: number
  /** 0 to 1023, tells makers of TIDs apart. */
  readonly clockId: number
  readonly after?: Tid | undefined
}

/**
 * A TID of now, and strictly greater than `after` also when the clock stands still or went back:
 * then it runs ahead of the clock, one microsecond a call.
 * @see https://atproto.com/specs/tid
 */
export function nextTid({ nowMs, clockId, after }: TidInput): Tid {
  assert(Number.isInteger(clockId) && clockId >= 0 && clockId < clockIds, 'clockId is 10 bits')
  const now = Math.floor(nowMs * 1000)
  const micros = after === undefined ? now : Math.max(now, tidMicros(after) + 1)
  assert(micros >= 0 && Number.isSafeInteger(micros), 'a TID holds 53 bits of microseconds')
  return parseTid(digits(micros, 11) + digits(clockId, 2))
}

/** Milliseconds since 1970, with the microseconds behind the point. */
export function tidTimeMs(tid: Tid): number {
  return tidMicros(tid) / 1000
}

/** Microseconds since 1970. Inexact above 2^53, which no clock shows before the year 2255. */
export function tidMicros(tid: Tid): number {
  let micros = 0
  for (let index = 0; index < 11; index++)
    micros = micros * 32 + alphabet.indexOf(tid.charAt(index))
  return micros
}

function digits(value: number, count: number): string {
  let text = ''
  for (let left = value; text.length < count; left = Math.floor(left / 32)) {
    text = alphabet.charAt(left % 32) + text
  }
  return text
}

const clockIds = 1024
/** Sorts like the numbers that it writes. */
const alphabet = '234567abcdefghijklmnopqrstuvwxyz'
