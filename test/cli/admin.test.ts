import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'

import { getBlob, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { beginSession, namesIn, readSession } from '../kit/stratos-session.ts'
import { isFields, listOf, textOf } from '../kit/xrpc.ts'
import { type Ended, runAdmin, runAtTerminal } from './run.ts'

setDefaultTimeout(60_000)

let stratos: SeededStratos

beforeAll(async () => {
  const people = { alice: ['a', 'b'], bob: ['a'], carol: ['c'], dave: [] }
  stratos = await SeededStratos.start({ people })
})
afterAll(async () => {
  await stratos?.stop()
})

describe('ends with 2, a reason and nothing on standard output', () => {
  test.each<[string, readonly string[], string]>([
    ['at a command that there is not', ['frobnicate'], 'no such command'],
    ['at an option before the command', ['--json', 'members'], 'no such command'],
    ['at an option that there is not', ['members', '--all'], 'not known here'],
    ['at a short option', ['members', '-j'], 'not known here'],
    ['at an option of another command', ['boundaries', '--boundary', 'a'], 'not known here'],
    ['at an option without its value', ['members', '--boundary'], '--boundary needs a value'],
    ['at an option for a value', ['members', '--boundary', '--json'], '--boundary needs a value'],
    ['at a value that is not taken', ['members', '--json=yes'], '--json takes no value'],
    ['at an option twice', ['members', '--json', '--json'], '--json is given twice'],
    ['without a name', ['revoke-sessions'], 'stratos admin revoke-sessions <who>'],
    ['without an argument', ['add', 'bob.test'], 'stratos admin add <who> <boundary>'],
    ['with one argument too many', ['boundaries', 'a'], 'stratos admin boundaries'],
    ['at nobody’s name', ['add', 'bob', 'a'], 'neither a DID nor a handle'],
    ['at an empty set', ['set', 'bob.test'], 'either boundaries or --none'],
    ['at a set and --none', ['set', 'bob.test', 'a', '--none'], 'either boundaries or --none'],
    ['at a URI of no record', ['takedown', 'at://bob.test/a'], 'at://{did}/{collection}/{rkey}'],
    ['at a name for what is lifted', ['takedown', 'bob.test', '--lift', '--ref', 'x'], '--ref'],
    ['before it erases unasked', ['unenroll', 'bob.test'], 'or with --yes'],
    ['at a URL with a path', ['members', '--url', 'https://a.test/b'], '--url must be'],
    ['at a URL with a name', ['members', '--url', 'https://admin:x@a.test'], '--url must be'],
    ['at a URL of another kind', ['members', '--url', 'ftp://a.test'], '--url must be'],
    ['at http elsewhere', ['members', '--url', 'http://a.test'], 'not sent over http'],
  ])('%s', async (_, args, why) => {
    const before = await stratos.boundariesOf('bob')
    expectUsage(await run(args), why)
    expect(await stratos.boundariesOf('bob')).toEqual(before)
  })

  test.each([
    ['no password', {}, 'set STRATOS_ADMIN_PASSWORD'],
    ['an empty one', { STRATOS_ADMIN_PASSWORD: '' }, 'at least 16 characters'],
    ['a short one', { STRATOS_ADMIN_PASSWORD: 'short' }, 'at least 16 characters'],
  ] as [string, Record<string, string>, string][])('with %s', async (_, env, why) => {
    expectUsage(await runAdmin(['members'], { STRATOS_PORT: String(stratos.port), ...env }), why)
  })

  test('at a port that is none', async () => {
    const env = { STRATOS_PORT: 'http', STRATOS_ADMIN_PASSWORD: stratos.adminPassword }
    expectUsage(await runAdmin(['members'], env), 'STRATOS_PORT must be')
  })

  test('at a password among the arguments, which it does not repeat', async () => {
    for (const args of [['--password', 'hunter2hunter2hunter2'], ['--admin-password=hunter2']]) {
      const ended = await run(['members', ...args])
      expectUsage(ended, 'STRATOS_ADMIN_PASSWORD and nowhere else')
      expect(ended.err).not.toContain('hunter2')
    }
  })
})

describe('ends with 1 and says what to do', () => {
  test.each<[string, readonly string[], string]>([
    ['where nobody listens', ['members', '--url', 'http://127.0.0.1:1'], '"stratos serve"'],
    ['at a boundary that there is not', ['add', 'bob.test', 'z'], 'has no boundary'],
    ['at members of such a one', ['members', '--boundary', 'z'], 'has no boundary'],
    ['at a handle of nobody', ['add', 'nobody.test', 'a'], '"stratos admin members"'],
    ['at a handle of a stranger', ['set', 'stranger.test', 'a'], '"stratos admin members"'],
    ['at keys that a service on loopback lacks', ['rotate-key'], 'https URL'],
    ['at sessions of a handle of nobody', ['revoke-sessions', 'nobody.test'], 'admin members'],
    ['at a stranger’s outbox', ['outbox', 'stranger.test'], '"stratos admin members"'],
  ])('%s', async (_, args, advice) => {
    expectFailure(await run(args), advice)
  })

  test('of a DID that is not enrolled', async () => {
    const { did } = stratos.person('stranger')
    for (const verb of ['add', 'remove', 'set']) {
      expectFailure(await run([verb, did, 'a']), 'is not enrolled')
    }
  })

  test('with a wrong password, which it does not repeat', async () => {
    const password = 'another password'
    const ended = await run(['members', '--json'], { STRATOS_ADMIN_PASSWORD: password })
    expectFailure(ended, 'STRATOS_ADMIN_PASSWORD')
    expect(ended.err).not.toContain(password)
  })
})

test('the help names every command, and needs neither service nor password', async () => {
  const env = { STRATOS_PORT: '1' }
  const asked = [[], ['help'], ['--help'], ['members', '--help']]
  const ends = await Promise.all(asked.map((args) => runAdmin(args, env)))
  for (const { code, out, err } of ends) {
    expect({ code, err }).toEqual({ code: 0, err: '' })
    for (const name of ['members', 'boundaries', 'add', 'remove', 'set', 'outbox', 'takedown']) {
      expect(out).toContain(`\n  stratos admin ${name}`)
    }
    const last = ['unenroll', 'rotate-key', 'rotate-session-secret', 'revoke-sessions']
    for (const name of last) expect(out).toContain(`stratos admin ${name}`)
  }
})

describe('members', () => {
  test('as a table has a line for each, in columns', async () => {
    const { code, out, err } = await run(['members'])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    const [head = '', ...lines] = out.trimEnd().split('\n')
    expect(head.split(/ {2,}/)).toEqual([
      'DID',
      'ACTIVE',
      'SESSION',
      'BOUNDARIES',
      'ENROLLED',
      'PDS',
    ])
    const dids = ['alice', 'bob', 'carol', 'dave'].map((name) => stratos.person(name).did)
    expect(lines.map((line) => line.split(' ')[0] ?? '')).toEqual(dids.toSorted())
    const alice = lines.find((line) => line.startsWith(stratos.person('alice').did))
    expect(alice?.split(/ {2,}/).slice(1, 4)).toEqual(['yes', 'lost', 'a b'])
    for (const line of lines) expect(line.slice(0, head.indexOf('PDS'))).toEndWith('Z  ')
  })

  test('of a boundary, by its bare or its whole name', async () => {
    for (const name of ['b', stratos.boundary('b')]) {
      const members = listOf(await json(['members', '--boundary', name]), 'members')
      expect<unknown[]>(members.map(({ did }) => did)).toEqual([stratos.person('alice').did])
    }
  })

  test('as JSON are what the service answers', async () => {
    const members = listOf(await json(['members', '--json']), 'members')
    const { did } = stratos.person('bob')
    expect(members.find((member) => member['did'] === did)).toEqual({
      did,
      pdsEndpoint: 'http://127.0.0.1:1',
      enrolledAt: expect.any(String),
      active: true,
      boundaries: [stratos.boundary('a')],
      session: 'lost',
      signingKey: expect.stringMatching(/^did:key:/),
    })
  })
})

describe('boundaries', () => {
  test('as a table and as JSON', async () => {
    const { code, out } = await run(['boundaries'])
    expect(code).toBe(0)
    const lines = out.trimEnd().split('\n')
    expect(lines.map((line) => line.split(/ {2,}/)[0])).toEqual(['BOUNDARY', 'a', 'b', 'c'])
    const { boundaries } = await json(['boundaries'])
    expect(boundaries).toContainEqual({
      boundary: stratos.boundary('b'),
      members: 1,
      configured: true,
    })
  })
})

describe('a change of boundaries', () => {
  test('counts at once, by DID or handle, bare or whole name', async () => {
    const { did } = stratos.person('dave')
    const [a, b] = [stratos.boundary('a'), stratos.boundary('b')]
    expect(await json(['add', 'dave.test', 'b'])).toEqual({ did, boundaries: [b] })
    expect(await json(['add', did, a])).toEqual({ did, boundaries: [a, b] })
    expect(await json(['remove', '@Dave.test', 'b'])).toEqual({ did, boundaries: [a] })
    expect(await stratos.boundariesOf('dave')).toEqual([a])
    expect(await json(['set', 'dave.test', 'b', a])).toEqual({ did, boundaries: [a, b] })
    expect(await json(['set', 'dave.test', '--none'])).toEqual({ did, boundaries: [] })
    expect(await stratos.boundariesOf('dave')).toEqual([])
  })

  test('tells people what came of it', async () => {
    const { did } = stratos.person('dave')
    const said = async (...args: string[]) => (await run(args)).out
    expect(await said('set', did, 'a', 'c')).toBe(`${did} is in a c\n`)
    expect(await said('remove', did, 'c')).toBe(`${did} is in a\n`)
    expect(await said('remove', did, 'a')).toBe(`${did} is in no boundary\n`)
  })
})

test('the outbox names who waits for what', async () => {
  const { did } = stratos.person('carol')
  const record = privatePost('a secret text', [stratos.boundary('c')])
  const input = { repo: did, collection: postCollection, record }
  const written = await stratos.callAs('carol', 'zone.stratos.repo.createRecord', { input })
  expect(written).toMatchObject({ status: 200 })
  for (const args of [['outbox'], ['outbox', 'carol.test']]) {
    const answer = await json(args)
    const mine = listOf(answer, 'actors').find((actor) => actor['did'] === did)
    expect(mine).toMatchObject({ pending: 1, parkedCount: 0, parked: [] })
    expect(answer).toMatchObject({ totals: { undelivered: expect.any(Number), parked: 0 } })
    expect(JSON.stringify(answer)).not.toContain('secret')
  }
  const { code, out } = await run(['outbox'])
  expect(code).toBe(0)
  expect(out).toMatch(new RegExp(`\\n${did} +[a-z-]+ +1 +0 +-`))
  expect(out).toContain('may have undelivered records')
})

describe('a takedown', () => {
  const read = 'zone.stratos.repo.getRecord'

  test('hides a record and shows it again', async () => {
    const { did } = stratos.person('alice')
    const record = privatePost('a post', [stratos.boundary('a')])
    const input = { repo: did, collection: postCollection, record }
    const { body } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
    const uri = textOf(body, 'uri')
    const seen = async () => (await stratos.callAs('bob', read, { params: addressOf(uri) })).status
    expect(await seen()).toBe(200)
    const byHandle = uri.replace(did, 'alice.test')
    const taken = await run(['takedown', byHandle, '--ref', 'case 7'])
    expect(taken).toEqual({ code: 0, out: `${uri} is taken down\n`, err: '' })
    expect(await seen()).toBe(404)
    expect(await json(['takedown', uri, '--lift'])).toMatchObject({
      subject: { uri },
      takedown: { applied: false },
    })
    expect(await seen()).toBe(200)
  })

  test('hides a blob and shows it again', async () => {
    const { did } = stratos.person('alice')
    const image = await uploadBlob(stratos, 'alice', { bytes: picture() })
    const cid = image.ref.$link
    const record = picturePost('a picture', [stratos.boundary('a')], image)
    const input = { repo: did, collection: postCollection, record }
    await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
    const { bearer: authorization } = stratos.person('bob')
    const seen = async () => (await getBlob(stratos, 'alice', { cid, authorization })).status
    expect(await seen()).toBe(200)
    const taken = await run(['takedown', `alice.test/${cid}`])
    expect(taken).toEqual({ code: 0, out: `${did}/${cid} is taken down\n`, err: '' })
    expect(await seen()).toBe(404)
    expect(await json(['takedown', `${did}/${cid}`, '--lift'])).toMatchObject({
      subject: { did, cid },
      takedown: { applied: false },
    })
    expect(await seen()).toBe(200)
    expectFailure(await run(['takedown', `${did}/x`]), 'cid')
  })

  test('of a repo needs no record, and of a record one that was there', async () => {
    const { did } = stratos.person('stranger')
    expect(await json(['takedown', did])).toMatchObject({ takedown: { applied: true } })
    expect(await json(['takedown', did, '--lift'])).toMatchObject({ takedown: { applied: false } })
    const missing = `at://${stratos.person('alice').did}/${postCollection}/missing`
    expectFailure(await run(['takedown', missing]), 'nothing is known here')
  })
})

test('revoke-sessions signs somebody out, by handle or DID', async () => {
  const { did } = stratos.person('alice')
  const authorization = await beginSession(stratos, 'alice')
  expect(await readSession(stratos, authorization)).toMatchObject({ status: 200 })
  const ended = await run(['revoke-sessions', 'alice.test'])
  const said = `${did} is signed out; sessions: 1, browsers: 0\n`
  expect(ended).toEqual({ code: 0, out: said, err: '' })
  expect(await readSession(stratos, authorization)).toMatchObject({ status: 401 })
  expect(await json(['revoke-sessions', did])).toEqual({ did, sessions: 0, browsers: 0 })
})

test('rotate-session-secret ends no session, and says until when the one before counts', async () => {
  const authorization = await beginSession(stratos, 'alice')
  const answer = await json(['rotate-session-secret'])
  expect(answer).toEqual({ kid: expect.any(String), formerUntil: expect.any(String) })
  expect(namesIn(await beginSession(stratos, 'alice')).kid).toBe(textOf(answer, 'kid'))
  expect(await readSession(stratos, authorization)).toMatchObject({ status: 200 })
  const { code, out } = await run(['rotate-session-secret'])
  expect(code).toBe(0)
  expect(out).toMatch(/^new sessions use the secret [\w-]+; those before count until \S+Z\n$/)
  for (let index = 2; index < 10; index++) await json(['rotate-session-secret'])
  expectFailure(await run(['rotate-session-secret']), 'former secrets still count')
  expect(await readSession(stratos, authorization)).toMatchObject({ status: 200 })
})

test('unenroll with --yes ends a membership', async () => {
  const { did } = stratos.person('dave')
  expect(await json(['unenroll', 'dave.test', '--yes'])).toEqual({ did, success: true })
  expectFailure(await run(['add', did, 'a']), 'is not enrolled')
  expect(await json(['unenroll', did, '--yes'])).toEqual({ did, success: true })
})

describe('on a terminal unenroll asks, and erases nobody', () => {
  test.each([
    ['at "no"', 'no\r'],
    ['at an empty line', '\r'],
    ['at the end of the input', '\u{4}'],
  ])('%s', async (_, keys) => {
    const { port, adminPassword } = stratos
    const own = { STRATOS_PORT: String(port), STRATOS_ADMIN_PASSWORD: adminPassword }
    const typist = (screen: string) => (screen.includes('to go on: ') ? keys : undefined)
    const { code, screen } = await runAtTerminal(['unenroll', 'bob.test'], own, typist)
    expect(code).toBe(1)
    expect(screen).toContain(`bob.test (${stratos.person('bob').did})`)
    expect(screen).toContain('nothing was done')
    expect(await stratos.boundariesOf('bob')).toEqual([stratos.boundary('a')])
  })
})

test('thousands of members come through all pages, with progress beside the answer', async () => {
  expect(await stratos.terminate()).toBe(0)
  const more = 5_100
  {
    using service = new Database(join(stratos.dataFolder, 'service.sqlite'))
    service.transaction(() => {
      for (let index = 0; index < more; index++) {
        service.run(
          `insert into enrollment (did, "pdsEndpoint", "signingKey", rkey, "enrolledAt", active,
            scope, "recordDue") values (?, 'https://pds.test', 'did:key:z', 'rkey',
            '2026-11-23T00:00:00.000Z', 1, 'atproto', 0)`,
          [`did:web:${index}.example.com`],
        )
      }
    })()
  }
  await stratos.run()
  const { code, out, err } = await run(['members', '--json'])
  expect(code).toBe(0)
  expect(err).toBe('5000 members so far ...\n')
  const answer: unknown = JSON.parse(out)
  const dids = listOf(isFields(answer) ? answer : {}, 'members').map(({ did }) => did)
  expect(new Set(dids).size).toBe(more + 3)
})

function run(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const { port, adminPassword } = stratos
  const own = { STRATOS_PORT: String(port), STRATOS_ADMIN_PASSWORD: adminPassword }
  return runAdmin(args, { ...own, ...env })
}

/** What a command gives to programs: one JSON document, and nothing beside it. */
async function json(args: readonly string[]): Promise<Record<string, unknown>> {
  const { code, out, err } = await run([...args.filter((one) => one !== '--json'), '--json'])
  expect({ code, err }).toEqual({ code: 0, err: '' })
  const value: unknown = JSON.parse(out)
  if (!isFields(value)) throw new Error(`expected an object: ${out}`)
  return value
}

function expectUsage({ code, out, err }: Ended, why: string): void {
  expect({ code, out }).toEqual({ code: 2, out: '' })
  const lines = err.trimEnd().split('\n')
  expect(lines).toEqual([expect.stringContaining(why), expect.stringContaining('admin help')])
}

function expectFailure({ code, out, err }: Ended, advice: string): void {
  expect({ code, out }).toEqual({ code: 1, out: '' })
  expect(err.trimEnd().split('\n')).toEqual([expect.stringContaining(advice)])
}
