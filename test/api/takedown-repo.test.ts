import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { addressOf, postCollection } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { getStatus, repoSubject, setTakedown } from '../kit/takedown.ts'
import { fieldsOf } from '../kit/xrpc.ts'
import {
  type Answers,
  deleteRecord,
  everybody,
  getRecord,
  getRepo,
  listOf,
  listRecords,
  Onlookers,
  others,
  questions,
  quoteOf,
  type Ref,
  replyTo,
} from './onlookers.ts'

setDefaultTimeout(60_000)

const repoTakendown: Refusal = [403, 'RepoTakendown']
const recordNotFound: Refusal = [404, 'RecordNotFound']

let onlookers: Onlookers

beforeAll(async () => {
  onlookers = await Onlookers.start()
})
afterAll(async () => {
  await onlookers?.stratos.stop()
})

describe('a repo', () => {
  let inRepo: Ref
  let ofBob: Ref
  const before = new Map<string, Answers>()
  const own = (rkey: string) => ({
    repo: onlookers.stratos.person('alice').did,
    collection: postCollection,
    rkey,
  })

  beforeAll(async () => {
    const { stratos } = onlookers
    await onlookers.write('alice', { rkey: 'beside' })
    inRepo = await onlookers.write('alice', { rkey: 'in-repo' })
    ofBob = await onlookers.write('bob', { rkey: 'of-bob' })
    for (const who of everybody) before.set(who, await onlookers.answers(who, inRepo))
    await setTakedown(stratos, repoSubject(stratos.person('alice').did), { applied: true })
  })

  test.each(others)('is to %s one that is not here', async (who) => {
    const { did: alice } = onlookers.stratos.person('alice')
    const { did: stranger } = onlookers.stratos.person('stranger')
    const nowhere = { ...inRepo, uri: inRepo.uri.replace(alice, stranger) }
    const { status, ...now } = await onlookers.answers(who, inRepo)
    const { status: _, ...never } = await onlookers.answers(who, nowhere)
    for (const [name, text] of Object.entries(now)) {
      expect(text.replaceAll(alice, stranger)).toBe(never[name] ?? '')
    }
    // Membership is no content, and stands in the person's public repo.
    expect(status).toBe(before.get(who)?.['status'] ?? '')
    await onlookers.expectNoExport(who)
  })

  test('is refused to its owner by name, for reading and for writing', async () => {
    for (const [name, question] of Object.entries(questions)) {
      const [nsid, call] = question(inRepo)
      const answer = await onlookers.ask('the owner', nsid, call)
      if (name === 'status') expect(answer).toMatchObject({ status: 200, body: { enrolled: true } })
      else expectRefusal(answer, repoTakendown)
    }
    const exporting = await onlookers.ask('the owner', getRepo, { params: { did: own('').repo } })
    expectRefusal(exporting, repoTakendown)
    for (const made of [{}, replyTo(ofBob), quoteOf(ofBob), replyTo(inRepo)]) {
      expect(await onlookers.exactWrite('alice', made)).toMatch(/^HTTP 403[^]*"RepoTakendown"/)
    }
    const missing = await onlookers.ask('the owner', getRecord, { params: own('missing') })
    expectRefusal(missing, repoTakendown)
  })

  test('keeps its owner from reading nobody else', async () => {
    const [nsid, call] = [getRecord, { params: addressOf(ofBob.uri) }]
    expect(await onlookers.ask('the owner', nsid, call)).toMatchObject({ status: 200 })
    const list = await onlookers.ask('the owner', listRecords, { params: listOf(ofBob.uri) })
    expect(list).toMatchObject({ status: 200 })
  })

  test('is shown to the operator, whole', async () => {
    expect(await onlookers.answers('the operator', inRepo)).toEqual(
      before.get('the operator') ?? {},
    )
    const { cids, withContent } = await onlookers.exported('the operator', 'alice')
    expect(withContent).toEqual([...cids.keys()])
  })

  test('has no record that anybody answers or quotes', async () => {
    const missing = { ...inRepo, uri: `${inRepo.uri}x` }
    for (const made of [replyTo, quoteOf]) {
      const refused = await onlookers.exactWrite('bob', made(missing))
      expect(refused).toStartWith('HTTP 400')
      expect(await onlookers.exactWrite('bob', made(inRepo))).toBe(refused)
    }
  })

  test('stays taken down over a restart, and over leaving and coming back', async () => {
    await onlookers.restart(() => onlookers.leaveAndReturn('alice'))
    const params = own('in-repo')
    expectRefusal(await onlookers.ask('the owner', getRecord, { params }), repoTakendown)
    const member = await onlookers.ask('a member of the boundary', getRecord, { params })
    expectRefusal(member, recordNotFound)
    const { body } = await onlookers.ask('the operator', getStatus, {
      params: { did: params.repo },
    })
    expect(fieldsOf(body, 'takedown')).toMatchObject({ applied: true })
  })

  test('lets its owner delete, and nobody else', async () => {
    const input = own('beside')
    for (const who of others) {
      const { status } = await onlookers.ask(who, deleteRecord, { input })
      expect(status).toBeOneOf([401, 403])
    }
    expect((await onlookers.ask('the owner', deleteRecord, { input })).body).toHaveProperty(
      'commit',
    )
    expect((await onlookers.ask('the owner', deleteRecord, { input })).body).toEqual({})
  })

  test('is as before once it is let up, without what was deleted', async () => {
    await setTakedown(onlookers.stratos, repoSubject(own('').repo), { applied: false })
    for (const [who, seen] of before) {
      const now = await onlookers.answers(who, inRepo)
      expect(now['getRecord']).toBe(seen['getRecord'] ?? '')
      expect(now['listRecords']).not.toContain('/beside"')
      expect(now['listRecords']?.includes('/in-repo"')).toBe(
        seen['listRecords']?.includes('/in-repo"') ?? false,
      )
    }
    expect(await onlookers.exactWrite('bob', replyTo(inRepo))).toStartWith('HTTP 200')
    await onlookers.exported('the owner', 'alice')
    await onlookers.write('alice', {})
  })
})
