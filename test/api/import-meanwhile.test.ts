import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { pathOf } from '../bulk/foreign-posts.ts'
import { postCollection } from '../kit/post.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

const createRecord = 'zone.stratos.repo.createRecord'
const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let importers: Importers
beforeAll(async () => {
  const names = ['ada', 'bea', 'cem', 'dot', 'eli', 'fay', 'gus']
  importers = await Importers.start({
    people: Object.fromEntries(names.map((name) => [name, ['a']])),
  })
})
afterAll(async () => {
  await importers?.[Symbol.asyncDispose]()
})

// All of these came too late to be seen when the body began.
const changes: Record<string, readonly [act: (name: string) => Promise<unknown>, says: RegExp]> = {
  'the person leaves': [
    (name) => importers.stratos.callAs(name, 'zone.stratos.enrollment.unenroll', { verb: 'POST' }),
    /^HTTP\/1\.1 403 .*"error":"NotEnrolled"/s,
  ],
  'the person loses the boundary of the records': [
    (name) => importers.stratos.setBoundaries(name, ['b']),
    /^HTTP\/1\.1 400 .*"error":"ForbiddenBoundary"/s,
  ],
  'the repo is taken down': [
    (name) => setTakedown(importers.stratos, repoSubject(importers.did(name)), { applied: true }),
    /^HTTP\/1\.1 403 .*"error":"RepoTakendown"/s,
  ],
  'a record that comes is taken down': [
    (name) => {
      const uri = `at://${importers.did(name)}/${pathOf('one')}`
      return setTakedown(importers.stratos, recordSubject({ uri, cid: anyCid }), { applied: true })
    },
    /^HTTP\/1\.1 403 .*"error":"RecordTakendown"/s,
  ],
  'the person writes': [
    (name) => {
      const record = importers.post('first')
      const input = { repo: importers.did(name), collection: postCollection, record }
      return importers.stratos.callAs(name, createRecord, { input })
    },
    /^HTTP\/1\.1 409 .*"error":"RepoAlreadyExists"/s,
  ],
  'the person comes into more boundaries': [
    (name) => importers.stratos.setBoundaries(name, ['a', 'b']),
    /^HTTP\/1\.1 200 .*"imported":1/s,
  ],
}

test.each(
  Object.entries(changes).map(([what, [act, says]], index) => [what, act, says, index] as const),
)('while the body comes, %s', async (_, act, says, index) => {
  const name = ['ada', 'bea', 'cem', 'dot', 'eli', 'fay'][index] ?? ''
  const car = importers.repoOf(name, 'one').car()
  const { socket, answered } = await importers.begin(name, car.length, car.subarray(0, 100))
  await act(name)
  socket.write(car.subarray(100))
  expect(await answered).toMatch(says)
  socket.destroy()
  expect(importers.uploads()).toEqual([])
})

test('a service that starts anew keeps nothing of a body that it was sent', async () => {
  const car = importers.repoOf('gus', 'one').car()
  const { socket, answered } = await importers.begin('gus', car.length, car.subarray(0, 100))
  socket.on('error', () => undefined)
  answered.catch(() => undefined)
  await importers.stratos.kill()
  expect(importers.uploads()).toHaveLength(1)
  await importers.stratos.run()
  expect(importers.uploads()).toEqual([])
  expect(await importers.send('gus', car)).toMatchObject({ status: 200, body: { imported: 1 } })
})
