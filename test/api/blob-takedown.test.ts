import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { type BlobRef, getBlob, picture } from '../kit/blob.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { blobHomes } from '../kit/blob-home.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { getStatus, recordSubject, setTakedown, updateStatus } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { BlobUploaders } from './blob-uploaders.ts'

setDefaultTimeout(60_000)

const forbidden: Refusal = [403, 'Forbidden']
const badRequest: Refusal = [400, 'InvalidRequest']
const notFound: Refusal = [400, 'NotFound']
const recordCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
const rawCid = 'bafkreidwslb22nkaxoadyaqlhlxgntmiq4jdenhkbrxhcq6avxlt75br5u'

let service: BlobUploaders
describe.each(blobHomes)('blobs %s', (home) => {
  beforeAll(async () => {
    const names = ['alice', 'bob', 'mod', 'many', 'late', 'left', 'temp', 'swept', 'untold']
    service = await BlobUploaders.start(
      {
        people: Object.fromEntries(names.map((name) => [name, ['a']])),
      },
      home,
    )
    await service.stratos.terminate()
    await service.stratos.run({ STRATOS_MOD_SERVICE_DID: service.did('mod') })
  })
  afterAll(async () => {
    await service[Symbol.asyncDispose]()
  })

  describe('refused is', () => {
    test.each<[string, (nsid: string) => Promise<string> | string | undefined, Refusal]>([
      ['nobody', () => undefined, [401, 'AuthMissing']],
      ['the owner', (nsid) => token('alice', nsid), forbidden],
      ['another person', () => service.stratos.person('bob').bearer, forbidden],
    ])('%s, to take a blob down', async (_, authorization, refusal) => {
      const blob = await named('alice')
      const call = { input: { subject: subject('alice', blob), takedown: { applied: true } } }
      const taking = { ...call, authorization: await authorization(updateStatus) }
      expectRefusal(await service.stratos.call(updateStatus, taking), refusal)
      const params = { did: service.did('alice'), blob: blob.ref.$link }
      const ask = { params, authorization: await authorization(getStatus) }
      expectRefusal(await service.stratos.call(getStatus, ask), refusal)
      expect(await seen('alice', 'bob', blob)).toBe(200)
    })

    test.each([
      ['of a record', recordCid],
      ['of no blob', 'picture.png'],
      ['of a path', '../../signing_key'],
    ])('the CID %s', async (_, cid) => {
      const wrong = { $type: 'com.atproto.admin.defs#repoBlobRef', did: service.did('alice'), cid }
      const input = { subject: wrong, takedown: { applied: true } }
      const authorization = service.stratos.adminBasic
      expectRefusal(await service.stratos.call(updateStatus, { input, authorization }), badRequest)
      const params = { did: service.did('alice'), blob: cid }
      expectRefusal(await service.stratos.call(getStatus, { params, authorization }), badRequest)
    })

    test('the status of a blob that nobody knows', async () => {
      const temporary = await service.upload('alice', picture())
      for (const cid of [rawCid, temporary.ref.$link]) {
        for (const did of [service.did('alice'), service.did('stranger')]) {
          const call = { params: { did, blob: cid }, authorization: service.stratos.adminBasic }
          expectRefusal(await service.stratos.call(getStatus, call), notFound)
        }
      }
    })
  })

  describe.each(['the operator', 'the moderation service'])('%s', (who) => {
    test('takes a blob down and lets it up again, whoever names it', async () => {
      const blob = await named('alice')
      const cid = blob.ref.$link
      await permanent('alice', cid)
      const on = { applied: true, ref: 'report-7' }
      expect(await update(who, blob, on)).toEqual({ subject: subject('alice', blob), takedown: on })
      expect(await quarantined('alice')).toContain(cid)
      expect((await service.bytes('alice')).permanent).not.toContain(cid)
      expect(await status(who, blob)).toEqual(on)
      expect([await seen('alice', 'bob', blob), await seen('alice', 'alice', blob)]).toEqual([
        404, 403,
      ])
      expect((await service.tryPost('alice', blob)).body['error']).toBe('BlobNotFound')

      await update(who, blob, on)
      await update(who, blob, { applied: false })
      expect(await quarantined('alice')).not.toContain(cid)
      expect((await service.bytes('alice')).permanent).toContain(cid)
      expect(await status(who, blob)).toEqual({ applied: false })
      expect(await seen('alice', 'bob', blob)).toBe(200)
      await update(who, blob, { applied: false })
      expect(await seen('alice', 'bob', blob)).toBe(200)
      await service.post('alice', blob)
    })
  })

  describe('a blob that is taken down', () => {
    test('is not taken by an upload, and is by one after that', async () => {
      const bytes = picture()
      const blob = await service.upload('late', bytes)
      await service.post('late', blob)
      await permanent('late', blob.ref.$link)
      await set('late', blob, { applied: true })
      const before = await service.bytes('late')
      expectRefusal(await service.send('late', bytes), [400, 'BlobTakendown'])
      expect(await service.bytes('late')).toEqual(before)
      // Of somebody else it is another blob.
      expect((await service.send('bob', bytes)).status).toBe(200)
      await set('late', blob, { applied: false })
      expect((await service.send('late', bytes)).status).toBe(200)
    })

    test('before anybody has it is refused when it comes, and waits for nothing', async () => {
      const bytes = picture()
      const { ref } = await service.upload('bob', bytes)
      const blob = { ref }
      await set('temp', blob, { applied: true })
      expectRefusal(await service.send('temp', bytes), [400, 'BlobTakendown'])
      expect(await service.bytes('temp')).toEqual(noBytes)
      await set('temp', blob, { applied: false })
      expect((await service.send('temp', bytes)).status).toBe(200)
    })

    test('while it waits for a record gets none', async () => {
      const blob = await service.upload('temp', picture())
      await set('temp', blob, { applied: true })
      expect((await service.tryPost('temp', blob)).body['error']).toBe('BlobNotFound')
      await set('temp', blob, { applied: false })
      expect((await service.tryPost('temp', blob)).status).toBe(200)
      expect(await seen('temp', 'bob', blob)).toBe(200)
    })

    test('goes with its last record, and stays refused', async () => {
      const bytes = picture()
      const blob = await service.upload('swept', bytes)
      const uri = await service.post('swept', blob)
      await permanent('swept', blob.ref.$link)
      await set('swept', blob, { applied: true })
      await service.remove('swept', uri)
      await service.settled('swept', { permanent: [], quarantined: [] })
      expectRefusal(await service.send('swept', bytes), [400, 'BlobTakendown'])
      await set('swept', blob, { applied: false })
      const { status: after } = await service.send('swept', bytes)
      expect(after).toBe(200)
    })

    test('goes from quarantine when its owner leaves, and stays refused on a return', async () => {
      const blob = await service.upload('left', picture())
      await service.post('left', blob)
      await permanent('left', blob.ref.$link)
      await set('left', blob, { applied: true })
      expect(await quarantined('left')).toEqual([blob.ref.$link])
      const unenroll = { verb: 'POST' } as const
      await service.stratos.callAs('left', 'zone.stratos.enrollment.unenroll', unenroll)
      await service.settled('left', noBytes)
      expect(await status('the operator', blob, 'left')).toMatchObject({ applied: true })
      await set('left', blob, { applied: false })
      expect(await service.bytes('left')).toEqual(noBytes)
    })

    test('counts among the thousand of a repo', async () => {
      await whileStopped(service.stratos, (sql) =>
        sql.run(
          Array.from({ length: 999 }, (_, index) => ({
            sql: 'insert into takedown (subject, did, cid, ref, "appliedAt") values ($1, $2, $3, $4, $5)',
            args: [
              `at://${service.did('many')}/x.y.z/r${index}`,
              service.did('many'),
              null,
              null,
              '',
            ],
          })),
        ),
      )
      const [one, two] = [await named('many'), await named('many')]
      await set('many', one, { applied: true })
      const call = { input: { subject: subject('many', two), takedown: { applied: true } } }
      const authorization = service.stratos.adminBasic
      expectRefusal(
        await service.stratos.call(updateStatus, { ...call, authorization }),
        badRequest,
      )
      expect(await seen('many', 'bob', two)).toBe(200)
      expect(await seen('many', 'bob', one)).toBe(404)
      await set('many', one, { applied: true })
      await set('many', one, { applied: false })
      await set('many', two, { applied: true })
      expect(await quarantined('many')).toEqual([two.ref.$link])
    })
  })

  describe.each([true, false])('a kill between the row and the bytes, applied: %p', (applied) => {
    test('leaves them to the next start', async () => {
      const blob = await named('untold')
      const cid = blob.ref.$link
      await permanent('untold', cid)
      const did = service.did('untold')
      if (!applied) await set('untold', blob, { applied: true })
      await whileStopped(service.stratos, async (sql) => {
        const change = applied
          ? 'insert into takedown (subject, did, cid, "appliedAt") values ($1, $2, $3, \'\')'
          : 'delete from takedown where subject = $1 and did = $2 and cid = $3'
        const of = [`${did}/${cid}`, did]
        await sql.run([
          { sql: 'insert into takedown_news (subject, did) values ($1, $2)', args: of },
          { sql: change, args: [...of, cid] },
        ])
      })
      const kind = applied ? 'quarantined' : 'permanent'
      await eventually('bytes at their place', async () =>
        (await service.bytes('untold'))[kind].includes(cid) ? true : undefined,
      )
      expect(await seen('untold', 'bob', blob)).toBe(applied ? 404 : 200)
    })
  })

  test('a record that is taken down and a blob of it are let up one by one', async () => {
    const blob = await service.upload('bob', picture())
    const uri = await service.post('bob', blob)
    const record = recordSubject({ uri, cid: recordCid })
    await setTakedown(service.stratos, record, { applied: true })
    await set('bob', blob, { applied: true })
    await set('bob', blob, { applied: false })
    expect(await seen('bob', 'alice', blob)).toBe(404)
    await setTakedown(service.stratos, record, { applied: false })
    expect(await seen('bob', 'alice', blob)).toBe(200)
  })
})

type Linked = Pick<BlobRef, 'ref'>

function subject(name: string, { ref }: Linked) {
  const $type = 'com.atproto.admin.defs#repoBlobRef'
  return { $type, did: service.did(name), cid: ref.$link }
}

/** A blob that a post in the boundary a names. */
async function named(name: string): Promise<BlobRef> {
  const blob = await service.upload(name, picture())
  await service.post(name, blob)
  return blob
}

async function set(name: string, blob: Linked, takedown: { readonly applied: boolean }) {
  await setTakedown(service.stratos, subject(name, blob), takedown)
}

async function token(name: string, lxm: string): Promise<string> {
  const { stratos } = service
  return `Bearer ${await serviceToken(stratos.person(name), { aud: stratos.did, lxm })}`
}

async function credential(who: string, lxm: string): Promise<string> {
  return who === 'the operator' ? service.stratos.adminBasic : await token('mod', lxm)
}

async function update(who: string, blob: Linked, takedown: object) {
  const input = { subject: subject('alice', blob), takedown }
  const authorization = await credential(who, updateStatus)
  const answer = await service.stratos.call(updateStatus, { input, authorization })
  expect(answer).toMatchObject({ status: 200 })
  return answer.body
}

async function status(who: string, { ref }: Linked, name = 'alice') {
  const params = { did: service.did(name), blob: ref.$link }
  const authorization = await credential(who, getStatus)
  return (await service.stratos.call(getStatus, { params, authorization })).body['takedown']
}

async function seen(owner: string, viewer: string, { ref }: Linked): Promise<number> {
  const authorization = service.stratos.person(viewer).bearer
  const response = await getBlob(service.stratos, owner, { cid: ref.$link, authorization })
  await response.body?.cancel()
  return response.status
}

async function quarantined(name: string) {
  return (await service.bytes(name)).quarantined
}

async function permanent(name: string, cid: string): Promise<void> {
  await eventually('permanent bytes', async () =>
    (await service.bytes(name)).permanent.includes(cid) ? true : undefined,
  )
}
