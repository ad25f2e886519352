import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { admin } from '../../src/cli/admin.ts'
import { type Ended, runAdmin } from './run.ts'

setDefaultTimeout(60_000)

const password = 'a long enough password'
const did = 'did:plc:alicealicealicealicealic'
const uri = `at://${did}/zone.stratos.feed.post/one`
const record = { $type: 'com.atproto.repo.strongRef', uri, cid: 'bafyone' }

/** A service of any version and temper, and all that it was asked. */
let answers: Record<string, () => Response>
let asked: { path: string; authorization: string | null; input: unknown }[]
let server: Bun.Server<undefined>

beforeEach(() => {
  asked = []
  answers = {
    '/.well-known/did.json': () => Response.json({ id: 'did:web:stratos.test' }),
    '/xrpc/zone.stratos.repo.describeRepo': () => Response.json({ did }),
  }
  server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: async (request) => {
      const { pathname, search } = new URL(request.url)
      const authorization = request.headers.get('authorization')
      const input: unknown = request.method === 'POST' ? await request.json() : undefined
      asked.push({ path: pathname + search, authorization, input })
      const notFound = () => new Response('nothing', { status: 404 })
      return (answers[pathname] ?? notFound)()
    },
  })
})
afterEach(async () => {
  await server.stop(true)
})

describe('the password', () => {
  test('is sent to no address beyond this machine without TLS', async () => {
    for (const host of ['0.0.0.0', '[::ffff:127.0.0.1]', 'localhost.example.com', 'example.com']) {
      const { code, out } = await run('boundaries', '--url', `http://${host}:${server.port}`)
      expect({ code, out }).toEqual({ code: 2, out: '' })
    }
    expect(asked).toEqual([])
  })

  test('is sent to no proxy', async () => {
    const proxied: string[] = []
    const proxy = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => {
        proxied.push(request.url)
        return new Response()
      },
    })
    answering('zone.stratos.admin.listBoundaries', { boundaries: [] })
    const url = `http://127.0.0.1:${proxy.port}`
    const env = { HTTP_PROXY: url, http_proxy: url, STRATOS_ADMIN_PASSWORD: password }
    const ended = await runAdmin(['boundaries', '--url', origin()], env)
    await proxy.stop(true)
    expect(ended.code).toBe(0)
    expect(proxied).toEqual([])
  })

  test('follows no redirect', async () => {
    answers['/xrpc/zone.stratos.admin.listBoundaries'] = () =>
      Response.redirect(`${origin()}/elsewhere`)
    const ended = await run('boundaries')
    expect(ended.code).toBe(1)
    expect(ended.err).toContain('check --url')
    expect(asked.map(({ path }) => path)).toEqual(['/xrpc/zone.stratos.admin.listBoundaries'])
  })

  test('goes with calls of methods alone', async () => {
    answering('zone.stratos.admin.listBoundaries', { boundaries: [] })
    expect((await run('boundaries')).code).toBe(0)
    const basic = `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`
    expect(asked.map(({ authorization }) => authorization)).toEqual([basic, null])
  })
})

describe('ends with 1 and one line at a server that', () => {
  const ends: [string, () => Response, string][] = [
    ['is none of ours', () => new Response('<h1>hello</h1>'), 'check --url'],
    ['answers another shape', () => Response.json({ boundaries: 1 }), '"boundaries"'],
    ['answers a list', () => Response.json([]), 'check --url'],
    ['fails', () => refusal(500, 'InternalServerError', 'oh'), 'its log says why'],
    ['is of another version', () => refusal(501, 'MethodNotImplemented', 'no'), 'another one'],
    [
      'has seen too many wrong passwords',
      () => refusal(429, 'RateLimitExceeded', 'too many', { 'retry-after': '7' }),
      'try again in 7 seconds',
    ],
    ['answers without end', () => new Response('x'.repeat(17_000_000)), 'over 16777216 bytes'],
    [
      'writes to the terminal',
      () => refusal(400, 'InvalidRequest', '\u{1b}[2J\u{202e}\r\nwiped'),
      '\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}wiped (InvalidRequest)',
    ],
  ]
  test.each(ends)('%s', async (_, answer, why) => {
    answers['/xrpc/zone.stratos.admin.listBoundaries'] = answer
    const { code, out, err } = await run('boundaries')
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(err.trimEnd().split('\n')).toEqual([expect.stringContaining(why)])
  })

  test('has always one more page', async () => {
    answering('zone.stratos.admin.listMembers', { members: [], cursor: 'again' })
    const ended = await run('members')
    expect(ended.code).toBe(1)
    expect(ended.err).toContain('does not end')
    expect(asked.length).toBe(2_000)
  })
})

test('a table shows nothing that moves the cursor', async () => {
  const reason = 'refused \u{1b}]0;title\u{7} \u{202e}txt \u{9b}1m'
  const parked = [{ collection: 'zone.stratos.feed.post', rkey: 'one', reason }]
  answering('zone.stratos.admin.listOutbox', {
    actors: [{ did, state: 'idle', pending: 0, parkedCount: 1, parked }],
    totals: { undelivered: 0, sessionLost: 0, parked: 1 },
  })
  const { code, out } = await run('outbox')
  expect(code).toBe(0)
  expect(out).toContain(`${uri}  refused \u{fffd}]0;title\u{fffd} \u{fffd}txt \u{fffd}1m`)
  expect(out.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
})

describe('takedown', () => {
  const nsid = 'com.atproto.admin.updateSubjectStatus'
  const repo = { $type: 'com.atproto.admin.defs#repoRef', did }

  test.each<[readonly string[], object, string]>([
    [[did], { subject: repo, takedown: { applied: true } }, `${did} is taken down`],
    [['alice.test'], { subject: repo, takedown: { applied: true } }, `${did} is taken down`],
    [
      [uri, '--ref', 'case 7'],
      { subject: record, takedown: { applied: true, ref: 'case 7' } },
      `${uri} is taken down`,
    ],
    [
      [`at://alice.test/zone.stratos.feed.post/one`, '--lift'],
      { subject: record, takedown: { applied: false } },
      `${uri} is no longer taken down`,
    ],
  ])('%j', async (args, input, said) => {
    answering('com.atproto.admin.getSubjectStatus', { subject: record })
    answering(nsid, { subject: record, takedown: { applied: true } })
    const ended = await run('takedown', ...args)
    expect(ended).toEqual({ code: 0, out: `${said}\n`, err: '' })
    expect(asked.at(-1)).toMatchObject({ path: `/xrpc/${nsid}`, input })
    const looked = asked.find(({ path }) => path.includes('getSubjectStatus'))
    const isRecord = args[0]?.startsWith('at://') === true
    expect(looked?.path.includes(encodeURIComponent(uri)) ?? false).toBe(isRecord)
  })
})

test('rotate-key names the key that new sign-ins use', async () => {
  answering('zone.stratos.admin.rotateOauthKey', { kid: 'key-2' })
  expect(await run('rotate-key')).toMatchObject({ code: 0, out: expect.stringContaining('key-2') })
  expect(asked).toMatchObject([{ path: '/xrpc/zone.stratos.admin.rotateOauthKey', input: {} }])
})

describe('unenroll', () => {
  const nsid = 'zone.stratos.admin.unenroll'
  const sent = () => asked.filter(({ path }) => path === `/xrpc/${nsid}`).map(({ input }) => input)

  test.each(['', 'no', 'y', 'Yes', 'yes please'])(
    'does nothing at the answer "%s"',
    async (said) => {
      answering(nsid, { success: true })
      const ended = await atTerminal(said, 'unenroll', 'alice.test')
      expect(ended).toMatchObject({ code: 1, out: '', err: 'stratos admin: nothing was done\n' })
      expect(sent()).toEqual([])
    },
  )

  test('asks nothing of the service without a terminal or --yes', async () => {
    expect(await run('unenroll', did)).toMatchObject({ code: 2, out: '' })
    expect(asked).toEqual([])
  })

  test('names whom it erases, and does it at "yes"', async () => {
    answering(nsid, { success: true })
    const ended = await atTerminal('yes\n', 'unenroll', 'alice.test')
    expect(ended.question).toContain(`alice.test (${did})`)
    expect(ended).toMatchObject({ code: 0, out: expect.stringContaining('no longer enrolled') })
    expect(sent()).toEqual([{ did }])
  })

  test('with --yes asks nobody', async () => {
    answering(nsid, { success: true })
    const { code, out } = await run('unenroll', did, '--yes', '--json')
    expect({ code, answer: JSON.parse(out) as unknown }).toEqual({
      code: 0,
      answer: { did, success: true },
    })
    expect(sent()).toEqual([{ did }])
  })
})

function answering(nsid: string, body: object): void {
  answers[`/xrpc/${nsid}`] = () => Response.json(body)
}

function refusal(status: number, error: string, message: string, headers = {}): Response {
  return Response.json({ error, message }, { status, headers })
}

function origin(): string {
  return `http://127.0.0.1:${server.port}`
}

/** As a process would, without a terminal. */
async function run(...args: readonly string[]): Promise<Ended> {
  return await started(args)
}

async function atTerminal(said: string, ...args: readonly string[]) {
  let question = ''
  const ask = async (text: string) => {
    question = text
    return said
  }
  return { ...(await started(args, { ask })), question }
}

async function started(
  args: readonly string[],
  more: { readonly ask?: (question: string) => Promise<string> } = {},
): Promise<Ended> {
  const written = { out: '', err: '' }
  const own = args.includes('--url') ? args : [...args, '--url', origin()]
  const code = await admin(own, {
    env: { STRATOS_ADMIN_PASSWORD: password },
    version: 'test',
    print: (text) => void (written.out += `${text}\n`),
    tell: (text) => void (written.err += `${text}\n`),
    ...more,
  })
  return { code, ...written }
}
