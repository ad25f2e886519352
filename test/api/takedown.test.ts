import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { recordTakedownsMax } from '../../src/store/takedown.ts'
import { postCollection } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { recordSubject, setTakedown, updateStatus } from '../kit/takedown.ts'
import {
  type Answers,
  deleteRecord,
  everybody,
  getRecord,
  listOf,
  listRecords,
  Onlookers,
  others,
  quoteOf,
  type Ref,
  replyTo,
  uriOf,
} from './onlookers.ts'

setDefaultTimeout(60_000)

const recordTakendown: Refusal = [403, 'RecordTakendown']
const recordNotFound: Refusal = [404, 'RecordNotFound']

let onlookers: Onlookers

beforeAll(async () => {
  onlookers = await Onlookers.start()
})
afterAll(async () => {
  await onlookers?.stratos.stop()
})

describe('a record', () => {
  /** Two of one boundary; the one is taken down, the other stays. */
  let taken: Ref
  let beside: Ref
  const before = new Map<string, Answers>()
  const present = new Map<string, Answers>()
  const places = { repo: '', collection: postCollection, rkey: 'taken' }

  beforeAll(async () => {
    places.repo = onlookers.stratos.person('alice').did
    beside = await onlookers.write('alice', { rkey: 'beside' })
    const missing = { uri: uriOf(places), cid: beside.cid }
    for (const who of everybody) before.set(who, await onlookers.answers(who, missing))
    taken = await onlookers.write('alice', { rkey: 'taken' })
    for (const who of everybody) present.set(who, await onlookers.answers(who, taken))
    await setTakedown(onlookers.stratos, recordSubject(taken), { applied: true })
  })

  test.each(others)('is to %s as if it had never been', async (who) => {
    expect(await onlookers.answers(who, taken)).toEqual(before.get(who) ?? {})
    const seen = present.get(who)
    const isMember = who.includes('member of the boundary') || who.includes('moderation')
    expect(seen?.['getRecord']?.startsWith('HTTP 200')).toBe(isMember)
  })

  test('is refused to its owner by name, and in no list', async () => {
    const now = await onlookers.answers('the owner', taken)
    const refused = ['getRecord', 'getRecord by CID', 'the twin of getRecord']
    for (const name of refused) {
      expect(now[name]).toContain('"error":"RecordTakendown"')
      expect(now[name]).toStartWith('HTTP 403')
    }
    const rest = (all: Answers) => Object.entries(all).filter(([name]) => !refused.includes(name))
    expect(rest(now)).toEqual(rest(before.get('the owner') ?? {}))
    const other = { ...places, cid: 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a' }
    expectRefusal(await onlookers.ask('the owner', getRecord, { params: other }), recordNotFound)
  })

  test('is shown to the operator', async () => {
    expect(await onlookers.answers('the operator', taken)).toEqual(
      present.get('the operator') ?? {},
    )
  })

  test('is answered and quoted by nobody, as if it were not there', async () => {
    const missing = { uri: `${taken.uri}x`, cid: taken.cid }
    for (const name of ['bob', 'alice', 'mod']) {
      for (const made of [replyTo, quoteOf]) {
        const refused = await onlookers.exactWrite(name, made(missing))
        expect(refused).toMatch(/^HTTP 400[^]*"CrossNamespace(Reply|Embed)"/)
        expect(await onlookers.exactWrite(name, made(taken))).toBe(refused)
      }
      const mixed = { reply: { root: beside, parent: taken } }
      expect(await onlookers.exactWrite(name, mixed)).toBe(
        await onlookers.exactWrite(name, replyTo(missing)),
      )
      expect(await onlookers.exactWrite(name, replyTo(beside))).toStartWith('HTTP 200')
    }
  })

  test('stays in the tree of every export, without its content', async () => {
    for (const who of ['the owner', 'the operator']) {
      const { cids, withContent } = await onlookers.exported(who, 'alice')
      expect(cids.get(`${postCollection}/taken`)).toBe(taken.cid)
      expect(withContent).toContain(`${postCollection}/beside`)
      expect(withContent).not.toContain(`${postCollection}/taken`)
      expect(withContent).toHaveLength(cids.size - 1)
    }
    for (const who of others) await onlookers.expectNoExport(who)
  })

  test('stays taken down over a restart, and over leaving and coming back', async () => {
    await onlookers.restart(() => onlookers.leaveAndReturn('alice'))
    expect(await onlookers.answers('a member of the boundary', taken)).toEqual(
      before.get('a member of the boundary') ?? {},
    )
    expectRefusal(await onlookers.ask('the owner', getRecord, { params: places }), recordTakendown)
  })

  test('is deleted and written anew by its owner, and hidden at once', async () => {
    const bob = async () =>
      await onlookers.exact('a member of the boundary', getRecord, { params: places })
    const hidden = await bob()
    for (const who of others) {
      const { status } = await onlookers.ask(who, deleteRecord, { input: places })
      expect(status).toBeOneOf([401, 403])
    }
    const removed = await onlookers.ask('the owner', deleteRecord, { input: places })
    expect(removed.body).toHaveProperty('commit')
    expectRefusal(await onlookers.ask('the owner', getRecord, { params: places }), recordNotFound)
    expect(await bob()).toBe(hidden)
    const anew = await onlookers.write('alice', { rkey: 'taken' })
    expect(await bob()).toBe(hidden)
    expectRefusal(await onlookers.ask('the owner', getRecord, { params: places }), recordTakendown)
    expect(await onlookers.exactWrite('bob', replyTo(anew))).toContain('"CrossNamespaceReply"')
  })

  test('is as before once it is let up', async () => {
    await onlookers.ask('the owner', deleteRecord, { input: places })
    const fresh = await onlookers.write('alice', { rkey: 'taken', record: { text: 'anew' } })
    await setTakedown(onlookers.stratos, recordSubject(fresh), { applied: false })
    for (const [who, seen] of present) {
      const now = await onlookers.answers(who, fresh)
      const heads = (all: Answers) =>
        Object.entries(all).map(([name, text]) => [name, text.split('\n')[0]])
      expect(heads(now)).toEqual(heads(seen))
      expect(now['getRecord']?.includes('"text":"anew"')).toBe(
        seen['getRecord']?.startsWith('HTTP 200') ?? false,
      )
    }
    expect(await onlookers.exactWrite('bob', replyTo(fresh))).toStartWith('HTTP 200')
    expect(await onlookers.exactWrite('alice', quoteOf(fresh))).toStartWith('HTTP 200')
    const { cids, withContent } = await onlookers.exported('the owner', 'alice')
    expect(withContent).toHaveLength(cids.size)
  })

  test('may be taken down before it is written', async () => {
    const place = { ...places, rkey: 'early' }
    const early = { uri: uriOf(place), cid: taken.cid }
    await setTakedown(onlookers.stratos, recordSubject(early), { applied: true })
    expectRefusal(await onlookers.ask('the owner', getRecord, { params: place }), recordNotFound)
    const member = 'a member of the boundary'
    const missing = await onlookers.answers(member, early)
    await onlookers.write('alice', { rkey: 'early' })
    expect(await onlookers.answers(member, early)).toEqual(missing)
    await setTakedown(onlookers.stratos, recordSubject(early), { applied: false })
    expect(await onlookers.exact(member, getRecord, { params: place })).toStartWith('HTTP 200')
  })

  test('of as many as there may be, one more is refused with what to do instead', async () => {
    const { did } = onlookers.stratos.person('erin')
    const uri = (index: number) => `at://${did}/${postCollection}/${index}`
    await onlookers.restart(async () => {
      const sqlite = onlookers.openServiceSqlite()
      const sql = 'insert into takedown (subject, did, "appliedAt") values ($1, $2, $3)'
      const rows = Array.from({ length: recordTakedownsMax }, (_, index) => uri(index))
      await sqlite.run(rows.map((subject) => ({ sql, args: [subject, did, 'then'] })))
      await sqlite.close()
    })
    const subject = recordSubject({ uri: uri(recordTakedownsMax), cid: taken.cid })
    const call = { input: { subject, takedown: { applied: true } } }
    const answer = await onlookers.ask('the operator', updateStatus, call)
    expectRefusal(answer, [400, 'InvalidRequest'])
    expect(answer.body['message']).toContain('take down the repo')
    const shown = await onlookers.write('erin', { rkey: 'shown' })
    await onlookers.write('erin', { rkey: '7' })
    const page = await onlookers.ask('a member of the boundary', listRecords, {
      params: listOf(shown.uri),
    })
    expect(page.body['records']).toMatchObject([{ uri: shown.uri }])
  })
})
