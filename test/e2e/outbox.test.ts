import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { enrolled } from '../kit/enroll.ts'
import { publicHistory } from '../kit/firehose.ts'
import { type Account, Network, type PublicRecord } from '../kit/network.ts'
import { addressOf, enrollmentCollection, postCollection, privatePost } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, isFields, textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

/** Retries after an outage of seconds come within seconds; this is for a busy machine. */
const deliveryMs = 60_000

let network: Network
let stratos: Stratos
let alice: Account

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering'] })
  alice = await network.createAccount('alice')
  await enrolled(stratos, alice)
  await eventually('enrollment record', async () => {
    const [record] = await network.listRecords(alice.did, enrollmentCollection)
    return record
  })
})

afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('a post that the PDS missed gets its stub, once, when the PDS is back', async () => {
  const [post] = await whilePdsIsDown(['written while the PDS was down'])
  await stubOf(post)
  expect(await historyOf(post)).toEqual(['create'])
})

test('a kill between commit and delivery loses nothing and doubles nothing', async () => {
  const texts = ['one', 'two', 'three']
  const posts = await whilePdsIsDown(texts, () => stratos.kill())
  await stratos.run()
  for (const post of posts) await stubOf(post)
  for (const [index, post] of posts.entries()) {
    expect(await historyOf(post)).toEqual(['create'])
    const answer = await readOwn(post)
    expect(answer).toMatchObject({ status: 200, body: { value: { text: texts[index] } } })
  }
})

test('a kill after the PDS wrote and before it could say so doubles nothing', async () => {
  const uri = await post('to be deleted')
  await stubOf(uri)

  const written = await whilePdsIsMute(async () => {
    const created = await post('written, unanswered')
    await stubOf(created)
    await stratos.kill()
    return created
  })
  await stratos.run()
  // Delivery is in order: a muted PDS would hold the delete behind what is tried again here.
  await delivered()
  await whilePdsIsMute(async () => {
    await remove(uri)
    await stubGone(uri)
    await stratos.kill()
  })
  await stratos.run()
  // Delivery is in order: with this stub there, what was unanswered has been tried again.
  await stubOf(await post('after the kills'))
  expect(await historyOf(written)).toEqual(['create'])
  expect(await historyOf(uri)).toEqual(['create', 'delete'])
})

test('deleting a record removes its stub', async () => {
  const uri = await post('soon gone')
  await stubOf(uri)
  await remove(uri)
  await stubGone(uri)
  expect(await historyOf(uri)).toEqual(['create', 'delete'])
})

test('a record deleted before its stub was delivered leaves no stub behind', async () => {
  const token = await tokenFor('zone.stratos.repo.deleteRecord')
  const posted = await whilePdsIsDown(['never seen', 'seen'], async ([first]) => {
    await remove(first, token)
  })
  const [gone, kept = ''] = posted
  await stubOf(kept)
  await stubGone(gone)
  // Delivery is in order, so whatever was queued for the deleted one came before `kept`.
  expect(await historyOf(gone)).toBeOneOf([[], ['create', 'delete']])
})

test('a foreign record in the place of a stub is left alone', async () => {
  const rkey = 'foreign'
  const record = { $type: postCollection, createdAt: new Date().toISOString(), mine: true }
  const written = await fetch(`${network.pdsUrl}/xrpc/com.atproto.repo.createRecord`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${alice.accessJwt}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ repo: alice.did, collection: postCollection, rkey, record }),
  })
  expect(written.status).toBe(200)

  const uri = await post('behind a foreign record', rkey)
  const next = await post('after the foreign record')
  await stubOf(next)
  expect(await historyOf(uri)).toEqual(['create'])
  expect((await network.getRecord(addressOf(uri)))?.value).toEqual(record)
})

/** The URIs of what was posted. */
type Posted = readonly [string, ...string[]]

/** Posts while the PDS refuses connections, does `then`, and starts the PDS again. */
async function whilePdsIsDown(
  texts: readonly string[],
  then: (uris: Posted) => Promise<void> = () => Promise.resolve(),
): Promise<Posted> {
  // The PDS also mints the tokens, so they are fetched while it is up.
  const token = await tokenFor('zone.stratos.repo.createRecord')
  await network.killPds()
  try {
    const uris: string[] = []
    for (const text of texts) uris.push(await post(text, undefined, token))
    const [first = '', ...rest] = uris
    await then([first, ...rest])
    return [first, ...rest]
  } finally {
    await network.restartPds()
  }
}

async function whilePdsIsMute<T>(work: () => Promise<T>): Promise<T> {
  await network.mutePds()
  try {
    return await work()
  } finally {
    await network.unmutePds()
  }
}

async function post(text: string, rkey?: string, token?: string): Promise<string> {
  const nsid = 'zone.stratos.repo.createRecord'
  const record = privatePost(text, [stratos.boundary('engineering')])
  const answer = await stratos.call(nsid, {
    input: { repo: alice.did, collection: postCollection, record, ...(rkey ? { rkey } : {}) },
    authorization: `Bearer ${token ?? (await tokenFor(nsid))}`,
  })
  expect(answer).toMatchObject({ status: 200 })
  return textOf(answer.body, 'uri')
}

async function remove(uri: string, token?: string): Promise<void> {
  const nsid = 'zone.stratos.repo.deleteRecord'
  const authorization = `Bearer ${token ?? (await tokenFor(nsid))}`
  const answer = await stratos.call(nsid, { input: addressOf(uri), authorization })
  expect(answer).toMatchObject({ status: 200 })
}

function tokenFor(lxm: string): Promise<string> {
  const exp = Math.floor(Date.now() / 1000) + 600
  return network.serviceAuth(alice, { aud: stratos.did, lxm, exp })
}

function readOwn(uri: string) {
  return stratos.callAs(alice, 'zone.stratos.repo.getRecord', { params: addressOf(uri) })
}

function stubOf(uri: string): Promise<PublicRecord> {
  const look = () => network.getRecord(addressOf(uri))
  return eventually(`stub of ${uri}`, look, { withinMs: deliveryMs })
}

/** All outboxes are empty. */
function delivered(): Promise<true> {
  return eventually(
    'empty outbox',
    async () => {
      const health: unknown = await (await fetch(`${stratos.url}/health`)).json()
      const outbox = isFields(health) ? fieldsOf(health, 'outbox') : { actors: {} }
      const actors = fieldsOf(outbox, 'actors')
      return actors['waiting'] === 0 ? true : undefined
    },
    { withinMs: deliveryMs },
  )
}

async function stubGone(uri: string): Promise<void> {
  const look = async () =>
    (await network.getRecord(addressOf(uri))) === undefined ? true : undefined
  await eventually(`end of the stub of ${uri}`, look, { withinMs: deliveryMs })
}

/** What the PDS's event stream says about one record, in order. */
async function historyOf(uri: string): Promise<string[]> {
  const { collection, rkey } = addressOf(uri)
  const history = await publicHistory(network, alice.did)
  return history.filter(({ path }) => path === `${collection}/${rkey}`).map(({ action }) => action)
}
