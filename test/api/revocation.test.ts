import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { postCollection, privatePost, textsOf } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const clients = 16
const get = 'zone.stratos.repo.getRecord'
const list = 'zone.stratos.repo.listRecords'
let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({
    people: { author: ['a'], removed: ['a'], emptied: ['a', 'b'], leaver: ['a'], reader: ['a'] },
    env: { STRATOS_SHARDS: '2' },
  })
})
afterAll(async () => {
  await stratos?.stop()
})

test('a reader whose boundary was taken away sees no record in any later answer', async () => {
  await expectRevoked('removed', () => stratos.setBoundaries('removed', ['b']))
})

test('neither does one whom no boundary was left', async () => {
  await expectRevoked('emptied', () => stratos.setBoundaries('emptied', []))
})

test('neither does one who left', async () => {
  await expectRevoked('leaver', async () => {
    const lxm = 'zone.stratos.enrollment.unenroll'
    const claims = { jti: crypto.randomUUID() }
    const token = await serviceToken(
      stratos.person('leaver'),
      { aud: stratos.did, lxm },
      { claims },
    )
    const answer = await stratos.call(lxm, { input: {}, authorization: `Bearer ${token}` })
    expect(answer.status).toBe(200)
  })
})

test('a record that was taken down is in no later answer', async () => {
  await expectRevoked('reader', async (uri, cid) => {
    const input = {
      subject: { $type: 'com.atproto.repo.strongRef', uri, cid },
      takedown: { applied: true },
    }
    const authorization = stratos.adminBasic
    const update = 'com.atproto.admin.updateSubjectStatus'
    expect((await stratos.call(update, { input, authorization })).status).toBe(200)
  })
})

/** Many clients of one reader read in a loop while something takes the record away from it. */
async function expectRevoked(
  reader: string,
  revoke: (uri: string, cid: string) => Promise<void>,
): Promise<void> {
  const secret = crypto.randomUUID()
  const { did: repo } = stratos.person('author')
  const record = privatePost(secret, [stratos.boundary('a')])
  const input = { repo, collection: postCollection, record }
  const { body } = await stratos.callAs('author', 'zone.stratos.repo.createRecord', { input })
  const [uri, cid] = [textOf(body, 'uri'), textOf(body, 'cid')]
  const rkey = uri.slice(uri.lastIndexOf('/') + 1)
  const asks = [
    () => stratos.callAs(reader, get, { params: { repo, collection: postCollection, rkey } }),
    () => stratos.callAs(reader, list, { params: { repo, collection: postCollection } }),
  ]
  const shows = (answer: Answer) =>
    JSON.stringify(answer.body).includes(secret) ||
    (answer.body['records'] !== undefined && textsOf(answer.body).includes(secret))

  const seen = { before: 0, late: 0 }
  const unseen = { after: 0 }
  const revoked = new AbortController()
  const over = new AbortController()
  const reading = Array.from({ length: clients }, async (_, index) => {
    while (!over.signal.aborted) {
      const beganLater = revoked.signal.aborted
      const answer = await asks[index % asks.length]?.()
      if (answer === undefined || !shows(answer)) unseen.after += beganLater ? 1 : 0
      else seen[beganLater ? 'late' : 'before'] += 1
    }
  })
  const often = { everyMs: 1 }
  await eventually('many views', () => (seen.before >= clients * 4 ? true : undefined), often)
  await revoke(uri, cid)
  revoked.abort()
  const enough = () => (unseen.after + seen.late >= clients * 20 ? true : undefined)
  await eventually('many later answers', enough, often)
  over.abort()
  await Promise.all(reading)
  expect({ reader, late: seen.late }).toEqual({ reader, late: 0 })
}
