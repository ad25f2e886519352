import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { sessionsMax } from '../../src/store/session.ts'
import { DpopApp, pdsToken, seconds } from '../kit/dpop.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { beginSession } from '../kit/stratos-session.ts'
import { streamNsid, Subscriber } from '../kit/subscriber.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { fieldsOf } from '../kit/xrpc.ts'
import { asSync, opsAfter, Streaming } from './stream-readers.ts'

setDefaultTimeout(60_000)

const closedMsMax = 1_000
const ended = [1008, 'not entitled any more'] as const

let streaming: Streaming

beforeAll(async () => {
  const names = ['alice', 'leaver', 'taken', 'sue', 'crowd', 'kim', 'full']
  streaming = await Streaming.start(Object.fromEntries(names.map((name) => [name, ['a', 'b']])))
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

describe('within a second a stream ends', () => {
  test('of whoever leaves, to themselves and to others, and that of nobody else', async () => {
    using own = await streaming.own('leaver')
    using view = await streaming.open({ did: streaming.did('leaver') })
    using other = await streaming.own('alice')
    await endSoon([own, view], () => streaming.leave('leaver'))
    const again = streaming.open({ did: streaming.did('leaver') })
    expect(await failureOf(again)).toBeInstanceOf(Error)
    await streaming.write('alice', 'goes-on')
    expect(await opsAfter(other, 1)).toEqual(['create goes-on +'])
  })

  test('of a repo that is taken down, and is refused until it is back', async () => {
    const { stratos } = streaming
    const did = streaming.did('taken')
    await streaming.write('taken', 'one')
    using own = await streaming.own('taken')
    using view = await streaming.open({ did })
    using operator = await streaming.open({ did }, stratos.adminBasic)
    const takeDown = (applied: boolean) => setTakedown(stratos, repoSubject(did), { applied })
    await endSoon([own, view], () => takeDown(true))
    await operator.message('#status', ({ takendown }) => takendown === true)
    const refused = await stratos.call(streamNsid, { params: { did }, authorization: asSync })
    expectRefusal(refused, [404, 'RepoNotFound'])
    await takeDown(false)
    await operator.message('#status', ({ takendown }) => takendown === false)
    using back = await streaming.own('taken', { cursor: 0 })
    await back.message('#status', ({ takendown }) => takendown === false)
    expect(await opsAfter(back, 1)).toEqual(['create one +'])
  })

  test('whose session is deleted, and no other of the person', async () => {
    const [first, second] = [await session('sue'), await session('sue')]
    using deleted = await streaming.open({ did: streaming.did('sue') }, first)
    using kept = await streaming.open({ did: streaming.did('sue') }, second)
    const nsid = 'zone.stratos.server.deleteSession'
    await endSoon([deleted], () =>
      streaming.stratos.call(nsid, { verb: 'POST', authorization: first }),
    )
    await streaming.write('sue', 'kept')
    expect(await opsAfter(kept, 1)).toEqual(['create kept +'])
    const revoke = 'zone.stratos.admin.revokeSessions'
    await endSoon([kept], () =>
      streaming.stratos.call(revoke, {
        input: { did: streaming.did('sue') },
        authorization: streaming.stratos.adminBasic,
      }),
    )
  })

  test('whose session gives way to another', async () => {
    using oldest = await streaming.open({ did: streaming.did('crowd') }, await session('crowd'))
    for (let other = 1; other < sessionsMax; other++) await session('crowd')
    expect(oldest.socket.readyState).toBe(WebSocket.OPEN)
    await endSoon([oldest], () => session('crowd'))
  })

  test('whose key is unbound, or gives way to another', async () => {
    const { stratos } = streaming
    const [unbound, evicted] = [await DpopApp.of(stratos, 'kim'), await DpopApp.of(stratos, 'full')]
    using first = await byDpop(unbound, 'kim')
    using second = await byDpop(evicted, 'full')
    await endSoon([first], () =>
      stratos.callAs('kim', 'zone.stratos.server.unbindKey', {
        input: { jkt: unbound.key.thumbprint },
      }),
    )
    for (let other = 1; other < 10; other++) await DpopApp.of(stratos, 'full')
    expect(second.socket.readyState).toBe(WebSocket.OPEN)
    await endSoon([second], () => DpopApp.of(stratos, 'full'))
  })

  test('whose access token expires', async () => {
    const { stratos } = streaming
    const app = await DpopApp.of(stratos, 'alice')
    const exp = seconds() + 2
    app.token = await pdsToken(streaming.did('alice'), app.key, { claims: { exp } })
    using reader = await byDpop(app, 'alice')
    expect(await reader.end()).toEqual(ended)
    const late = Date.now() - exp * 1000
    expect(late).toBeGreaterThanOrEqual(0)
    expect(late).toBeLessThan(closedMsMax)
  })
})

describe('a domain is refused', () => {
  test.each([
    ['that is no boundary of this service', 'x', [400, 'InvalidRequest']],
    ['without the DID of the service', 'a', [400, 'InvalidRequest']],
    ['beyond the grant', 'b', [403, 'Forbidden']],
  ] as const)('%s', async (what, name, refusal) => {
    const domain = what.startsWith('without') ? name : streaming.stratos.boundary(name)
    for (const params of [{ domain }, { domain, did: streaming.did('alice') }]) {
      const authorization = await streaming.token(streaming.ofA)
      expectRefusal(await streaming.stratos.call(streamNsid, { params, authorization }), refusal)
    }
  })
})

test('a domain narrows a stream to what is in it', async () => {
  const domain = streaming.stratos.boundary('b')
  using own = await streaming.own('alice', { domain })
  using view = await streaming.open({ did: streaming.did('alice'), domain })
  await streaming.write('alice', 'narrow-a')
  await streaming.write('alice', 'narrow-b', { in: ['b'] })
  await streaming.write('alice', 'narrow-b', { in: ['a'] })
  for (const reader of [own, view]) {
    // Whoever reads at once may still get the record.
    const ops = (await opsAfter(reader, 2)).map((op) => op.replace(' +', ''))
    expect(ops).toEqual(['create narrow-b', 'delete narrow-b'])
  }
})

test('no stream is opened beyond a hundred of one person, and the operator can tell', async () => {
  const readers: Subscriber[] = []
  for (let one = 0; one < 100; one++) readers.push(await streaming.own('sue'))
  const { did, bearer } = streaming.stratos.person('sue')
  const answer = await streaming.stratos.call(streamNsid, {
    params: { did },
    authorization: bearer,
  })
  expectRefusal(answer, [503, 'Overloaded'])
  expect(answer.headers.get('retry-after')).not.toBeNull()
  const counts = async () => {
    const response = await fetch(`${streaming.stratos.url}/health`)
    const body: unknown = await response.json()
    return fieldsOf(fieldsOf(fieldsOf({ body }, 'body'), 'streams'), 'open')
  }
  expect(await counts()).toMatchObject({ repo: 100 })
  for (const reader of readers) reader[Symbol.dispose]()
  await eventually('places', async () => ((await counts())['repo'] === 0 ? true : undefined))
  using again = await streaming.own('sue')
  expect(again.told).toEqual([])
})

function session(name: string): Promise<string> {
  return beginSession(streaming.stratos, name)
}

async function byDpop(app: DpopApp, name: string): Promise<Subscriber> {
  const params = { did: streaming.did(name) }
  // A call that is no upgrade brings the nonce.
  await app.call(streamNsid, { params })
  const dpop = await app.proof(streamNsid)
  const authorization = `DPoP ${app.token}`
  return await Subscriber.open(streaming.stratos.url, { params, authorization, headers: { dpop } })
}

async function endSoon(
  readers: readonly Subscriber[],
  task: () => Promise<unknown>,
): Promise<void> {
  await task()
  const from = performance.now()
  for (const reader of readers) {
    const [code, reason] = await reader.end()
    // Who reads the log of a repo while it is closed is told so.
    expect([code, reason === 'RepoNotFound' ? ended[1] : reason]).toEqual([...ended])
  }
  expect(performance.now() - from).toBeLessThan(closedMsMax)
}
