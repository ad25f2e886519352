import { expect, test } from 'bun:test'

import { UsedProofs } from '../../src/api/dpop-replay.ts'
import { parseDid } from '../../src/atproto/syntax.ts'

const alice = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb')
const ofPersonMax = 10_000
const strangersMax = 100_000

function proof(change: Partial<Parameters<UsedProofs['take']>[0]> = {}) {
  return { did: alice, isMember: true, digest: 'one', expiresAtMs: 60_000, ...change }
}

test('a proof counts once, until it would no longer count anyway', () => {
  const used = new UsedProofs()
  expect(used.take(proof(), 0)).toBe('taken')
  expect(used.take(proof(), 0)).toBe('used')
  expect(used.take(proof(), 59_999)).toBe('used')
  expect(used.take(proof({ expiresAtMs: 90_000 }), 60_000)).toBe('taken')
})

test('one that expires within a span of time is remembered to its end', () => {
  const used = new UsedProofs()
  const late = proof({ expiresAtMs: 60_001 })
  expect(used.take(late, 0)).toBe('taken')
  expect(used.take(late, 60_001)).toBe('used')
})

test('nobody takes more room than their share, and others go on', () => {
  const used = new UsedProofs()
  for (let count = 0; count < ofPersonMax; count++) {
    expect(used.take(proof({ digest: `${count}` }), 0)).toBe('taken')
  }
  expect(used.take(proof({ digest: 'more' }), 0)).toBe('full')
  // What was used stays so: nothing is forgotten for want of room.
  expect(used.take(proof({ digest: '0' }), 0)).toBe('used')
  expect(used.take(proof({ did: bob }), 0)).toBe('taken')
})

test('strangers fill their own room only, and it is there again with time', () => {
  const used = new UsedProofs()
  const stranger = (index: number) => {
    const did = parseDid(`did:web:stranger-${Math.floor(index / 1000)}.test`)
    return proof({ did, digest: `${index}`, isMember: false })
  }
  for (let index = 0; index < strangersMax; index++) used.take(stranger(index), 0)
  expect(used.take(stranger(strangersMax), 0)).toBe('full')
  expect(used.take(proof(), 0)).toBe('taken')
  const later = { ...stranger(strangersMax), expiresAtMs: 120_000 }
  expect(used.take(later, 59_999)).toBe('full')
  expect(used.take(later, 60_000)).toBe('taken')
})
