import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { type Answer, fieldsOf, textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const invalidSwap: Refusal = [400, 'InvalidSwap']
const otherCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const names = [
  ['zone.stratos.repo.createRecord', 'zone.stratos.repo.deleteRecord'],
  ['com.atproto.repo.createRecord', 'com.atproto.repo.deleteRecord'],
] as const

let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

describe.each(names)('%s and %s', (createRecord, deleteRecord) => {
  const create = (more: object = {}) =>
    stratos.callAs('alice', createRecord, { input: input(more) })
  const remove = (rkey: string, more: object = {}) =>
    stratos.callAs('alice', deleteRecord, { input: { ...place(), rkey, ...more } })

  test('refuse a write on another commit than the present one', async () => {
    const first = await create()
    const stale = textOf(fieldsOf(first.body, 'commit'), 'cid')
    const { rkey } = addressOf(textOf((await create()).body, 'uri'))
    for (const swapCommit of [stale, otherCid, textOf(first.body, 'cid')]) {
      await expectNoChange(stratos, invalidSwap, () => create({ swapCommit }))
      await expectNoChange(stratos, invalidSwap, () => remove(rkey, { swapCommit }))
      // What is not there is not looked for before the commit is.
      await expectNoChange(stratos, invalidSwap, () => remove('missing', { swapCommit }))
    }
  })

  test('refuse to delete another record than the one that is meant', async () => {
    const answer = await create()
    const { rkey } = addressOf(textOf(answer.body, 'uri'))
    const { cid: commitCid } = fieldsOf(answer.body, 'commit')
    for (const swapRecord of [otherCid, commitCid]) {
      await expectNoChange(stratos, invalidSwap, () => remove(rkey, { swapRecord }))
    }
    const swapRecord = textOf(answer.body, 'cid')
    await expectNoChange(stratos, invalidSwap, () => remove('missing', { swapRecord }))
    expect((await remove(rkey, { swapRecord })).body).toHaveProperty('commit')
    await expectNoChange(stratos, invalidSwap, () => remove(rkey, { swapRecord }))
  })

  test('go on where the commit is the present one', async () => {
    let { body } = await create()
    for (let count = 0; count < 3; count++) {
      const swapCommit = textOf(fieldsOf(body, 'commit'), 'cid')
      const next = await create({ swapCommit })
      expect(next.status).toBe(200)
      body = next.body
    }
    const swapCommit = textOf(fieldsOf(body, 'commit'), 'cid')
    const { rkey } = addressOf(textOf(body, 'uri'))
    const swapRecord = textOf(body, 'cid')
    expect(await remove(rkey, { swapCommit, swapRecord })).toMatchObject({ status: 200 })
  })

  test('make no commit where nothing is to be deleted', async () => {
    const { rkey } = addressOf(textOf((await create()).body, 'uri'))
    expect((await remove(rkey)).body).toHaveProperty('commit')
    for (const gone of [rkey, 'never-there']) {
      const before = await stratos.snapshot()
      const answer = await remove(gone)
      expect(answer.status).toBe(200)
      expect(answer.body).toEqual({})
      expect(await stratos.snapshot()).toBe(before)
    }
  })

  test('let one of several writes through that name the same commit', async () => {
    const swapCommit = textOf(fieldsOf((await create()).body, 'commit'), 'cid')
    const answers = await Promise.all(Array.from({ length: 8 }, () => create({ swapCommit })))
    expect(statusesOf(answers)).toEqual([200, ...Array<number>(7).fill(400)])
    for (const { status, body } of answers) {
      if (status === 400) expect(body['error']).toBe('InvalidSwap')
    }
  })

  test('let one of several records through that want the same key', async () => {
    const rkey = `taken-by-one-${createRecord.length}`
    const answers = await Promise.all(Array.from({ length: 8 }, () => create({ rkey })))
    expect(statusesOf(answers)).toEqual([200, ...Array<number>(7).fill(409)])
  })

  test('give every one of many writes at once a commit of its own', async () => {
    const answers = await Promise.all(Array.from({ length: 30 }, () => create()))
    const revs = answers.map(({ body }) => textOf(fieldsOf(body, 'commit'), 'rev'))
    const uris = answers.map(({ body }) => textOf(body, 'uri'))
    expect(new Set(revs).size).toBe(30)
    expect(new Set(uris).size).toBe(30)
  })
})

function statusesOf(answers: readonly Answer[]): number[] {
  return answers.map(({ status }) => status).toSorted((a, b) => a - b)
}

function place() {
  return { repo: stratos.person('alice').did, collection: postCollection }
}

function input(more: object) {
  return { ...place(), record: privatePost('a post', [stratos.boundary('a')]), ...more }
}
