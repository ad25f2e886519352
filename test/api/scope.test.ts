import { describe, expect, test } from 'bun:test'

import { XrpcError } from '../../src/atproto/errors.ts'
import { Scopes } from '../../src/api/scope.ts'

const scopes = new Scopes({
  serviceDid: 'did:web:stratos.test',
  fragment: 'atproto_pns',
  collections: ['com.example.note', 'com.example.box.*'],
})
const note = 'com.example.note'
const us = 'did:web:stratos.test%23atproto_pns'
const applyWrites = 'zone.stratos.repo.applyWrites'

type Members = Readonly<Record<string, unknown>>
type Call = readonly [nsid: string, about?: { params?: Members; input?: Members }]

const create: Call = ['zone.stratos.repo.createRecord', { input: { collection: note } }]
const put: Call = ['com.atproto.repo.putRecord', { input: { collection: note } }]
const remove: Call = ['zone.stratos.repo.deleteRecord', { input: { collection: note } }]
const get: Call = ['com.atproto.repo.getRecord', { params: { collection: note } }]
const list: Call = ['zone.stratos.repo.listRecords', { params: { collection: note } }]
const describeRepo: Call = ['com.atproto.repo.describeRepo']
const prove: Call = ['zone.stratos.sync.getRecord', { params: { collection: note } }]
const proveTwin: Call = ['com.atproto.sync.getRecord', { params: { collection: note } }]
const getRepo: Call = ['zone.stratos.sync.getRepo']
const getRepoTwin: Call = ['com.atproto.sync.getRepo']
const wholeRepo: readonly Call[] = [
  getRepo,
  getRepoTwin,
  ...twins('sync.getLatestCommit', 'sync.getRepoStatus'),
  ...twins('sync.getBlob', 'sync.listBlobs', 'repo.listMissingBlobs', 'repo.uploadBlob'),
  ['zone.stratos.sync.getBlobUrl'],
]
const upload: Call = ['com.atproto.repo.uploadBlob']
const status: Call = ['zone.stratos.enrollment.status']
const unenroll: Call = ['zone.stratos.enrollment.unenroll']
const unknown: Call = ['zone.stratos.repo.newMethod']

function twins(...names: readonly string[]): Call[] {
  return names.flatMap((name): Call[] => [[`zone.stratos.${name}`], [`com.atproto.${name}`]])
}

function hydrate(...uris: readonly string[]): Call {
  return ['zone.stratos.repo.hydrateRecords', { input: { uris } }]
}

function apply(...writes: readonly (readonly [action: string, collection: string])[]): Call {
  const made = writes.map(([action, collection]) => ({
    $type: `${applyWrites}#${action}`,
    collection,
  }))
  return [applyWrites, { input: { writes: made } }]
}

const own = `at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/${note}/1`
const other = 'at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/com.example.other/1'

const cases: [scope: string, opens: readonly Call[], keepsShut: readonly Call[]][] = [
  ['transition:generic', [create, put, remove, get, getRepo, status, unenroll, unknown], []],
  ['', [], [create, get, status]],
  ['atproto transition:email transition:chat.bsky', [], [create, get, describeRepo, status]],
  [
    `repo:${note}`,
    [
      create,
      put,
      remove,
      get,
      list,
      prove,
      proveTwin,
      describeRepo,
      ...wholeRepo,
      upload,
      hydrate(own),
    ],
    [status, unenroll, unknown, hydrate(own, other)],
  ],
  [`repo:${note}?action=create`, [create, get, apply(['create', note])], [put, remove]],
  [`repo:${note}?action=create`, [], [apply(['create', note], ['delete', note])]],
  [`repo:${note}?action=create&action=update`, [create, put, list], [remove]],
  [`repo:${note}?action=create repo:${note}?action=update`, [put], [remove]],
  [`repo?collection=${note}&collection=com.example.other&action=delete`, [remove], [create]],
  ['repo:*', [create, put, remove, get, getRepo, hydrate(own, other)], [status, unknown]],
  ['repo:com.example.other', [], [create, get, list, upload, describeRepo, hydrate()]],
  ['repo:com.example.other', [], [prove, proveTwin, ...wholeRepo]],
  ['repo:com.example.box.any', [...wholeRepo, upload, hydrate(), hydrate('at://nobody')], [create]],
  ['repo:com.example.box.any', [], [get, prove, proveTwin]],
  [`repo:${note} repo:com.example.other`, [hydrate(own, other)], []],
  [`repo:${note}?action=create repo:com.example.other`, [], [apply(['delete', note])]],
  [`rpc:zone.stratos.repo.createRecord?aud=${us}`, [create], [put, get]],
  [`rpc:zone.stratos.sync.getRecord?aud=${us}`, [prove], [proveTwin, get, getRepo]],
  [`rpc:zone.stratos.enrollment.status?aud=*`, [status], [unenroll]],
  [
    `rpc?lxm=zone.stratos.repo.createRecord&lxm=${unenroll[0]}&aud=${us}`,
    [create, unenroll],
    [get],
  ],
  [`rpc:*?aud=${us}`, [create, get, getRepo, status, unknown], []],
]

// What a PDS would not grant, or what means something else.
const void_ = [
  'rpc:*?aud=*',
  'rpc:*',
  `rpc:*?aud=did:web:stratos.test`,
  `rpc:*?aud=did:web:stratos.test%23other`,
  `rpc:*?aud=did:web:other.test%23atproto_pns`,
  `rpc:*?aud=${us}&aud=*`,
  `rpc:*?aud=${us}&more=1`,
  `rpc:*?lxm=*&aud=${us}`,
  `rpc:zone.stratos.*?aud=${us}`,
  `rpc?aud=${us}`,
  'repo',
  'repo:',
  'repo?',
  'repo:com.example.*',
  'repo:**',
  'repo:%',
  `repo:${note}?action=`,
  `repo:${note}?action=read`,
  `repo:${note}?action=create&action=all`,
  `repo:${note}?collection=${note}`,
  `repo:${note}?more=1`,
  `repository:${note}`,
  `REPO:${note}`,
  `include:${note}`,
  `transition:generic?a`,
  `transition:generic2`,
  'Transition:Generic',
  'blob:*/*',
  'account:repo?action=manage',
  'identity:*',
  `repo:${note}\n`,
]

describe('a scope opens what it names', () => {
  for (const [scope, opens, keepsShut] of cases) {
    test(scope === '' ? 'an empty one nothing' : scope, () => {
      for (const call of opens) expect([call, errorOf(scope, call)]).toEqual([call, 'none'])
      for (const call of keepsShut) {
        expect([call, errorOf(scope, call)]).toEqual([call, 'ScopeMissing'])
      }
    })
  }
})

test('what is not understood opens nothing', () => {
  for (const scope of void_) {
    for (const call of [create, get, getRepo, upload, status]) {
      expect([scope, errorOf(scope, call)]).toEqual([scope, 'ScopeMissing'])
    }
  }
})

test('it also counts beside what is not understood', () => {
  expect(errorOf(`${void_.slice(0, -1).join(' ')} repo:${note}`, create)).toBe('none')
})

test('an endless scope opens nothing', () => {
  const scope = `${'a'.repeat(9000)} transition:generic`
  expect(errorOf(scope, create)).toBe('ScopeMissing')
})

function errorOf(scope: string, [nsid, about = {}]: Call): unknown {
  const { params = {}, input = {} } = about
  try {
    scopes.check(scope, { nsid, params, input })
    return 'none'
  } catch (error) {
    return error instanceof XrpcError && error.status === 403 ? error.error : error
  }
}
