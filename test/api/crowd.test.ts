import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { sendRaw } from '../kit/raw.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import type { Answer } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const nsid = 'zone.stratos.enrollment.status'
/** As many as are counted apart, and some more. */
const crowd = 10_050

let stratos: SeededStratos

beforeAll(async () => {
  const env = {
    STRATOS_AUTH_FAILURES_PER_MINUTE: '1',
    STRATOS_TRUSTED_PROXIES: '127.0.0.0/8,::1/128',
  }
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] }, env })
})
afterAll(async () => {
  await stratos?.stop()
})

test('a crowd of addresses that fail keeps out itself, and nobody else', async () => {
  const lines = (address: string, connection: string) =>
    [
      `GET /xrpc/${nsid} HTTP/1.1`,
      'Host: localhost',
      `X-Forwarded-For: ${address}`,
      'Authorization: Bearer wrong',
      `Connection: ${connection}`,
      '\r\n',
    ].join('\r\n')
  const requests = Array.from({ length: crowd }, (_, index) =>
    lines(addressOf(index), index === crowd - 1 ? 'close' : 'keep-alive'),
  )
  const answers = await sendRaw(stratos.port, requests.join(''))
  expect(answers.match(/HTTP\/1\.1 401 /g)).toHaveLength(crowd)
  const token = await serviceToken(stratos.person('alice'), { aud: stratos.did, lxm: nsid })
  const good = `Bearer ${token}`
  expectRefusal(await ask(addressOf(0), good), [429, 'RateLimitExceeded'])
  expect(await ask('192.0.2.7', good)).toMatchObject({ status: 200 })
  for (let count = 0; count < 3; count++) {
    expectRefusal(await ask('192.0.2.8', 'Bearer wrong'), [401, 'InvalidToken'])
  }
  expect(await ask('192.0.2.8', good)).toMatchObject({ status: 200 })
  expect(await ask('192.0.2.9', stratos.adminBasic)).toMatchObject({ status: 200 })
})

function ask(address: string, authorization: string): Promise<Answer> {
  const params = { did: stratos.person('alice').did }
  const headers = { 'x-forwarded-for': address }
  return stratos.call(nsid, { params, authorization, headers })
}

function addressOf(index: number): string {
  return `10.0.${index >> 8}.${index & 255}`
}
