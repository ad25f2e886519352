import { beforeEach, expect, test } from 'bun:test'
import { OauthStates, oauthStateMaxMs } from '../../src/store/oauth-state.ts'
import { serviceSql } from '../kit/service-store.ts'
import { temporaryFolder } from './temporary.ts'

const folder = temporaryFolder()
let states: OauthStates

beforeEach(async () => {
  states = new OauthStates(await serviceSql(folder))
})

test('a state of sign-in counts for ten minutes and is taken once', async () => {
  const state = { value: 'value', address: '192.0.2.1' }
  await states.save({ ...state, key: 'old', nowMs: 0 })
  const nowMs = oauthStateMaxMs + 1
  expect(await states.find('old', oauthStateMaxMs)).toBe('value')
  expect(await states.find('old', nowMs)).toBeUndefined()
  expect(await states.count(state.address, nowMs)).toEqual({ all: 0, ofAddress: 0 })
  await states.save({ ...state, key: 'new', nowMs })
  expect(await states.take('old')).toBeFalse()
  const taken = await Promise.all([states.take('new'), states.take('new')])
  expect(taken).toEqual([true, false])
  expect(await states.find('new', nowMs)).toBeUndefined()
})

test('sign-ins are counted, in all and of an address', async () => {
  for (const [index, address] of ['192.0.2.1', '192.0.2.2', '192.0.2.1'].entries()) {
    await states.save({ key: `${index}`, value: 'value', address, nowMs: 5 })
  }
  expect(await states.count('192.0.2.1', 5)).toEqual({ all: 3, ofAddress: 2 })
  expect(await states.count('192.0.2.3', 5)).toEqual({ all: 3, ofAddress: 0 })
})
