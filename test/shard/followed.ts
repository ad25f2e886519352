import { decodeFirst } from '@atcute/cbor'
import type { EventsAnswer, EventsCall } from '../../src/service/calls.ts'
import type { EventPush } from '../../src/shard/messages.ts'
import type { Actor, House } from './pools.ts'
import { isFields, listOf } from '../kit/xrpc.ts'

/** One frame as its reader sees it: `create collection/rkey +` where a record came along. */
export interface Shown {
  readonly seq: unknown
  readonly type: unknown
  readonly ops: readonly string[]
  readonly texts: readonly unknown[]
}

export function page(house: House, { did }: Actor, over: Partial<EventsCall> = {}) {
  const ask = { kind: 'events', after: 0, eyes: 'all', except: [], ...over } as const
  return house.pool.call(did, 'test', ask)
}

export function shownOf({ bytes, lengths }: EventsAnswer): Shown[] {
  let at = 0
  return lengths.map((length) => shown(bytes.subarray(at, (at += length))))
}

export function pushed({ events }: EventPush, bytes: Uint8Array) {
  let at = 0
  return events.map(({ length, ...event }) => {
    const frame = bytes.subarray(at, (at += length))
    return { ...event, ...(length === 0 ? {} : { shown: shown(frame) }) }
  })
}

function shown(bytes: Uint8Array): Shown {
  const [header, rest] = decodeFirst(bytes)
  const [body] = decodeFirst(rest)
  if (!isFields(header) || !isFields(body)) throw new Error('a frame is two maps')
  const { t: type } = header
  const { seq, takendown } = body
  if (type === '#status') {
    const { path = 'all' } = body
    return { seq, type, ops: [`${String(path)} ${String(takendown)}`], texts: [] }
  }
  const ops = listOf(body, 'ops')
  return {
    seq,
    type,
    ops: ops.map(({ action, path, record }) => {
      const rkey = String(path).slice(String(path).indexOf('/') + 1)
      return `${String(action)} ${rkey}${record === undefined ? '' : ' +'}`
    }),
    texts: ops.flatMap(({ record }) => (isFields(record) ? [record['text']] : [])),
  }
}
