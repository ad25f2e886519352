import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { keyOf, pathOf } from '../bulk/foreign-posts.ts'
import { postCollection } from '../kit/post.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { eventually } from '../kit/wait.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

const unenroll = 'zone.stratos.enrollment.unenroll'
const createRecord = 'zone.stratos.repo.createRecord'
const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'

let importers: Importers
beforeAll(async () => {
  const names = ['ada', 'bea', 'cem', 'dot', 'eli', 'fay', 'gus', 'hal', 'ida']
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
    (name) => importers.stratos.callAs(name, unenroll, { verb: 'POST' }),
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

test.each<[string, (name: string) => Promise<unknown>, object]>([
  [
    'the person leaves',
    (name) => importers.stratos.callAs(name, unenroll, { verb: 'POST' }),
    { status: 404, body: { error: 'RepoNotFound' } },
  ],
  [
    'the person comes into more boundaries',
    (name) => importers.stratos.setBoundaries(name, ['a', 'b']),
    { status: 503, body: { error: 'Overloaded' } },
  ],
])('while the records are stored, %s, and the import ends', async (what, act, refusal) => {
  const name = what.includes('leaves') ? 'hal' : 'ida'
  // They take longer than anything else here.
  const rkeys = Array.from({ length: 10_000 }, (_, index) => keyOf(index))
  const importing = importers.import(name, importers.repoOf(name, ...rkeys))
  const received = `"event":"import.received","did":"${importers.did(name)}"`
  await eventually('all of the body', () =>
    importers.stratos.log.includes(received) ? true : undefined,
  )
  await act(name)
  expect(await importing).toMatchObject(refusal)
  expect(importers.uploads()).toEqual([])
  expect(existsSync(importers.folder(name))).toBe(name === 'ida')
  const small = await importers.import(name, importers.repoOf(name, 'one'))
  expect(small.status).toBe(name === 'ida' ? 200 : 403)
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
