import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Did } from '../../src/atproto/syntax.ts'
import { Sessions } from '../../src/remote/sessions.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { loopbackFetch } from './directory.ts'
import { accessTokenOf, Visitor } from './visitor.ts'

let visitor: Visitor
let sessions: Map<Did, string>
let alice: Did

beforeEach(async () => {
  visitor = new Visitor()
  ;({ sessions, did: alice } = visitor)
})

afterEach(async () => {
  await visitor[Symbol.asyncDispose]()
})

describe('a refreshed session that cannot be stored', () => {
  /** What stands in the store, whose refresh token is used up. */
  let stale: string | undefined

  beforeEach(async () => {
    await visitor.kept()
    visitor.expire()
    stale = sessions.get(alice)
    visitor.diskFull = true
    await visitor.use()
  })

  test('is neither given up nor refreshed again', async () => {
    await visitor.use()
    expect(sessions.get(alice)).toBe(stale)
    expect(visitor.server.revoked).toEqual([])
    expect(visitor.server.tokenCalls).toHaveLength(2)
    expect(visitor.log.join()).toContain('disk full')
    expect(visitor.log.join()).not.toContain('SECRET')
  })

  test('is stored as soon as that works', async () => {
    visitor.diskFull = false
    await eventually('session in the store', () => (sessions.get(alice) === stale ? undefined : 1))
    visitor.oauth = visitor.fresh(loopbackFetch)
    await visitor.use()
    expect(visitor.server.tokenCalls).toHaveLength(2)
  })

  test('is stored at the end, if that works then', async () => {
    visitor.diskFull = false
    await visitor.oauth.stop()
    expect(accessTokenOf(sessions.get(alice))).not.toBe('EXPIRED')
  })

  test('does not hold up the end', async () => {
    await visitor.oauth.stop()
    expect(sessions.get(alice)).toBe(stale)
  })

  test('gives way to a sign-in for good, and is what that revokes', async () => {
    const second = await visitor.kept()
    visitor.diskFull = false
    await visitor.oauth.stop()
    expect(sessions.get(alice)).toBe(second.saved)
    expect(visitor.server.revoked).toEqual([expect.stringMatching(/^access-SECRET/)])
  })

  test('stays when a sign-in cannot be stored either', async () => {
    const second = await visitor.signIn()
    const full = new Error('disk full')
    expect(await failureOf(second.keep(() => Promise.reject(full)))).toBe(full)
    visitor.diskFull = false
    await visitor.oauth.stop()
    expect(sessions.get(alice)).not.toBe(second.saved)
    expect(accessTokenOf(sessions.get(alice))).not.toBe('EXPIRED')
  })

  test('is gone when it is revoked', async () => {
    await visitor.oauth.revoke(alice)
    visitor.diskFull = false
    await visitor.oauth.stop()
    expect(sessions.size).toBe(0)
  })
})

test('a newer session never gives way to an older one whose writing took long', async () => {
  const slow = Promise.withResolvers<void>()
  const written: string[] = []
  const here = new Sessions({
    ...visitor.store,
    set: async (_, saved) => {
      if (saved === 'older') await slow.promise
      written.push(saved)
    },
  })
  const both = [here.set(alice, 'older'), here.set(alice, 'newer')]
  slow.resolve()
  await Promise.all(both)
  expect(written).toEqual(['older', 'newer'])
})

test('while too many wait to be stored no other is given', async () => {
  const here = new Sessions({
    ...visitor.store,
    set: () => Promise.reject(new Error('disk full')),
  })
  const dids = Array.from({ length: 1_000 }, () => visitor.directory.add({}))
  sessions.set(alice, 'stored')
  for (const did of dids) {
    expect(await here.get(alice)).toBe('stored')
    await here.set(did, did)
  }
  expect(await failureOf(here.get(alice))).toBeInstanceOf(Error)
  for (const did of dids) expect(await here.get(did)).toBe(did)
  await here.stop()
})
