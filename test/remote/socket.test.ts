import { expect, test } from 'bun:test'
import { FetchRefused } from '../../src/remote/fetch.ts'
import { openSocket } from '../../src/remote/socket.ts'
import { failureOf } from '../kit/wait.ts'

test('a WebSocket in the clear is for private networks: its headers are for nobody else', async () => {
  let asked = 0
  const lookup = async () => {
    asked += 1
    return ['93.184.215.14']
  }
  const { signal } = new AbortController()
  const headers = { authorization: 'Bearer secret' }
  const way = { allowPrivateNetwork: false, lookup, headers, signal }
  const failure = await failureOf(openSocket(new URL('ws://stratos.test/stream'), way))
  expect(failure).toBeInstanceOf(FetchRefused)
  expect(String(failure)).toContain('stratos.test: not wss')
  expect(asked).toBe(0)
})
