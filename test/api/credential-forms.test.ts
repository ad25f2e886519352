import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { sendRaw } from '../kit/raw.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { isFields } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

// What no client library sends in this way.
const listDomains = '/xrpc/zone.stratos.server.listDomains'
const listMembers = '/xrpc/zone.stratos.admin.listMembers'

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

test.each([
  ['an empty Authorization', ['Authorization:']],
  ['one of blanks', ['Authorization:    ']],
  ['an empty one beside a good one', ['Authorization:', 'Authorization: Bearer @alice']],
  ['a good one beside an empty one', ['Authorization: Bearer @alice', 'Authorization:']],
  ['the same good one twice', ['Authorization: Bearer @alice', 'Authorization: Bearer @alice']],
  ['two in one', ['Authorization: Bearer @alice, Bearer @alice']],
  ['two names of it', ['Authorization: Bearer @alice', 'aUTHORIZATION: Bearer @alice']],
  ['a tab for a blank', ['Authorization: Bearer\t@alice']],
  ['something after it', ['Authorization: Bearer @alice x']],
  ['quotes around it', ['Authorization: Bearer "@alice"']],
])('%s is a bad credential, also where none is needed', async (_, lines) => {
  const headers = lines.map((line) => line.replaceAll('@alice', stratos.person('alice').did))
  expect(await ask(listDomains, headers)).toEqual([401, 'InvalidToken'])
})

test('a service-auth token given twice is none', async () => {
  const lxm = 'zone.stratos.server.listDomains'
  const token = await serviceToken(stratos.person('alice'), { aud: stratos.did, lxm })
  const header = `Authorization: Bearer ${token}`
  expect(await ask(listDomains, [header, header])).toEqual([401, 'InvalidToken'])
  expect(await ask(listDomains, [header])).toEqual([200, undefined])
})

test.each<[string, (good: string) => readonly string[]]>([
  ['twice', (good) => [`Basic ${good}`, `Basic ${good}`]],
  ['twice in one header', (good) => [`Basic ${good}, Basic ${good}`]],
  ['before another', (good) => [`Basic ${good}`, `Basic ${btoa('admin:wrong')}`]],
  ['with something after it', (good) => [`Basic ${good} x`]],
  ['without its padding', (good) => [`Basic ${good.replace(/=+$/, '')}`]],
  ['with more of it', (good) => [`Basic ${good}==`]],
  ['with what is no Base64 in it', (good) => [`Basic ${good.slice(0, 5)}!${good.slice(5)}`]],
  ['under another name', () => [`Basic ${btoa(`Admin:${stratos.adminPassword}`)}`]],
])('the operator’s password %s is refused', async (_, make) => {
  // 38 characters: with padding, at which a lenient reader would stop.
  const good = btoa(`admin:${stratos.adminPassword}`)
  expect(good).toEndWith('=')
  const headers = make(good).map((value) => `Authorization: ${value}`)
  expect(await ask(listMembers, headers)).toEqual([401, 'InvalidToken'])
})

test('the operator’s password in its one form is taken, whatever the case of its scheme', async () => {
  for (const scheme of ['Basic', 'basic', 'BASIC']) {
    const value = stratos.adminBasic.replace('Basic', scheme)
    expect(await ask(listMembers, [`Authorization: ${value}`])).toEqual([200, undefined])
  }
})

test('what says how the process is does not depend on who asks', async () => {
  for (const path of ['/health', '/ready', '/xrpc/_health', '/.well-known/did.json']) {
    expect(await ask(path, ['Authorization: Bearer wrong'])).toEqual([200, undefined])
  }
})

/** @returns status and name of the error */
async function ask(path: string, headers: readonly string[]): Promise<[number, unknown]> {
  const host = `Host: localhost:${stratos.port}`
  const lines = [`GET ${path} HTTP/1.1`, host, 'Connection: close', ...headers, '', '']
  const answer = await sendRaw(stratos.port, lines.join('\r\n'))
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  const status = Number(head.split(' ')[1])
  if (status === 401) expect(head.toLowerCase()).toContain('\r\nwww-authenticate: ')
  const fields: unknown = /^\{.*\}$/s.test(body) ? JSON.parse(body) : undefined
  return [status, isFields(fields) ? fields['error'] : undefined]
}
