import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { addressOf } from '../kit/post.ts'
import { expectNoChange, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { listOf, textOf } from '../kit/xrpc.ts'
import { temporaryFolder } from '../store/temporary.ts'

setDefaultTimeout(60_000)

const create = 'zone.stratos.repo.createRecord'
const note = 'com.example.notes.note'
const lexicon = {
  lexicon: 1,
  id: note,
  defs: {
    main: {
      type: 'record',
      key: 'any',
      record: {
        type: 'object',
        required: ['title'],
        properties: {
          title: { type: 'string', maxLength: 20 },
          about: { type: 'ref', ref: 'com.atproto.repo.strongRef' },
        },
      },
    },
  },
}
const method = { ...lexicon, id: 'com.example.notes.find', defs: { main: { type: 'query' } } }
const folder = temporaryFolder()
let stratos: SeededStratos

beforeAll(async () => {
  mkdirSync(join(folder, 'notes'))
  writeFileSync(join(folder, 'notes', 'note.json'), JSON.stringify(lexicon))
  writeFileSync(join(folder, 'find.json'), JSON.stringify(method))
  writeFileSync(join(folder, 'README.md'), 'lexicons of ours')
  stratos = await SeededStratos.start({
    people: { alice: ['a'], bob: ['a'], carol: ['b'] },
    env: {
      STRATOS_COLLECTIONS: 'zone.stratos.feed.post,com.example.notes.*,com.example.exact',
      STRATOS_LEXICON_DIR: folder,
    },
  })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('refused is a record', () => {
  const fine = { title: 'hello' }
  test.each<[string, string, object, Refusal]>([
    ['that its lexicon does not admit', note, { record: { title: 1 } }, [400, 'InvalidRecord']],
    [
      'that it does not admit, with validate: false',
      note,
      { record: {}, validate: false },
      [400, 'InvalidRecord'],
    ],
    ['without a boundary', note, { record: fine, bare: true }, [400, 'MissingBoundary']],
    [
      'without a boundary and a lexicon',
      'com.example.exact',
      { record: fine, bare: true, validate: false },
      [400, 'MissingBoundary'],
    ],
    [
      'that cannot be validated, where that is asked for',
      'com.example.exact',
      { record: fine, validate: true },
      [400, 'InvalidRecord'],
    ],
    [
      'with a float, lexicon or not',
      'com.example.exact',
      { record: { size: 1.5 }, validate: false },
      [400, 'InvalidRecord'],
    ],
    [
      'that passes for a stub',
      'com.example.exact',
      { record: { source: {} }, validate: false },
      [400, 'InvalidRecord'],
    ],
    [
      'whose name is that of a method',
      'com.example.notes.find',
      { record: fine },
      [400, 'InvalidRecord'],
    ],
    ['of a collection beside', 'com.example.exactly', { record: fine }, [400, 'InvalidCollection']],
    [
      'of a collection below',
      'com.example.exact.more',
      { record: fine },
      [400, 'InvalidCollection'],
    ],
    [
      'of the name without a last part',
      'com.example.notes',
      { record: fine },
      [400, 'InvalidCollection'],
    ],
    ['of a public collection', 'app.bsky.feed.post', { record: fine }, [400, 'InvalidCollection']],
  ])('%s', async (_, collection, asked, refusal) => {
    await expectNoChange(stratos, refusal, () => write(collection, asked))
  })
})

test('a record of a known lexicon is validated, one of an unknown is data', async () => {
  for (const [collection, status] of [
    [note, 'valid'],
    ['com.example.notes.unheard', 'unknown'],
    ['com.example.exact', 'unknown'],
  ] as const) {
    const { body } = await write(collection, { record: { title: 'hello', extra: [1, { a: 'b' }] } })
    expect(body).toMatchObject({ validationStatus: status })
    const params = addressOf(textOf(body, 'uri'))
    const read = (name: string) => stratos.callAs(name, 'zone.stratos.repo.getRecord', { params })
    expect((await read('bob')).body).toMatchObject({ value: { $type: collection, title: 'hello' } })
    expect((await read('carol')).status).toBe(404)
  }
})

test('such collections are listed, described and replaced like all others', async () => {
  const { did: repo } = stratos.person('alice')
  const { body } = await write(note, { record: { title: 'first' } })
  const { rkey } = addressOf(textOf(body, 'uri'))
  const record = { title: 'second', boundary: boundary() }
  const put = { input: { repo, collection: note, rkey, record } }
  expect((await stratos.callAs('alice', 'zone.stratos.repo.putRecord', put)).status).toBe(200)
  const params = { repo, collection: note }
  const listed = await stratos.callAs('bob', 'zone.stratos.repo.listRecords', { params })
  expect(listOf(listed.body, 'records').map(({ value }) => value)).toContainEqual(
    expect.objectContaining({ title: 'second' }),
  )
  const described = await stratos.callAs('bob', 'zone.stratos.repo.describeRepo', {
    params: { repo },
  })
  expect(described.body['collections']).toContain(note)
})

test('what is left in a collection that is taken off can be deleted, and not replaced', async () => {
  const { did: repo } = stratos.person('alice')
  const collection = 'com.example.exact'
  const place = { repo, collection, rkey: 'left' }
  const record = { title: 'left', boundary: boundary() }
  expect((await write(collection, { rkey: 'left', record })).status).toBe(200)
  await stratos.terminate()
  await stratos.run({ STRATOS_COLLECTIONS: 'zone.stratos.feed.post' })
  const off: Refusal = [400, 'InvalidCollection']
  const call = (method: string, more: object) =>
    stratos.callAs('alice', `zone.stratos.repo.${method}`, { input: { ...place, ...more } })
  await expectNoChange(stratos, off, () => call('putRecord', { record }))
  await expectNoChange(stratos, off, () => call('deleteRecord', { rkey: 'absent' }))
  expect((await call('deleteRecord', {})).body).toHaveProperty('commit')
  const read = { params: place }
  expect((await stratos.callAs('bob', 'zone.stratos.repo.getRecord', read)).status).toBe(404)
})

async function write(collection: string, asked: object) {
  const { record, bare = false, ...more }: { record?: object; bare?: boolean } = { ...asked }
  const { did: repo } = stratos.person('alice')
  const whole = bare ? record : { ...record, boundary: boundary() }
  return await stratos.callAs('alice', create, {
    input: { repo, collection, record: whole, ...more },
  })
}

function boundary() {
  return { values: [{ value: stratos.boundary('a') }] }
}
