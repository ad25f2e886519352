import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { ListServer } from '../kit/list-server.ts'
import { beginSession } from '../kit/stratos-session.ts'
import { opsAfter, Streaming } from './stream-readers.ts'

setDefaultTimeout(60_000)

const closedMsMax = 1_000

let streaming: Streaming
let list: ListServer

beforeAll(async () => {
  list = new ListServer()
  streaming = await Streaming.start({ alice: ['a'], bob: ['a'] })
  await streaming.stratos.terminate()
  list.set(streaming.stratos.person('alice').did, streaming.stratos.person('bob').did)
  await streaming.run(rules())
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
  await list?.[Symbol.asyncDispose]()
})

test('who is on the list no more loses their streams within a second, and nobody else does', async () => {
  // The service starts with the copy that it has, and hears of the new list once it may.
  const gate = Promise.withResolvers<void>()
  await streaming.stratos.terminate()
  list.gate = gate.promise
  list.set(streaming.stratos.person('bob').did)
  await streaming.run(rules())
  const did = streaming.did('alice')
  const session = await beginSession(streaming.stratos, 'alice')
  using own = await streaming.open({ did }, session)
  using view = await streaming.open({ did })
  using part = await streaming.open({ did }, await streaming.token(streaming.ofA))
  using all = await streaming.following()
  using other = await streaming.own('bob')
  await streaming.write('alice', 'before')
  for (const reader of [own, view, part]) await opsAfter(reader, 1)
  expect(all.bodies('#enrollment').some(({ action }) => action === 'unenroll')).toBe(false)
  const from = performance.now()
  gate.resolve()
  for (const reader of [own, view, part]) {
    expect(await reader.end()).toEqual([1008, 'not entitled any more'])
  }
  await all.message('#enrollment', (one) => one['did'] === did && one['action'] === 'unenroll')
  expect(performance.now() - from).toBeLessThan(closedMsMax)
  await streaming.write('bob', 'goes-on')
  expect(await opsAfter(other, 1)).toEqual(['create goes-on +'])
  await all.until('others', () =>
    all.commits.at(-1)?.did === streaming.did('bob') ? 1 : undefined,
  )
})

function rules(): Record<string, string> {
  return {
    STRATOS_ENROLLMENT_MODE: 'allowlist',
    STRATOS_ALLOW_LIST_URI: list.uri,
    STRATOS_ALLOWLIST_ENFORCE: 'continuous',
  }
}
