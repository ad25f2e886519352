import { afterAll, describe, expect, test } from 'bun:test'
import { drive } from '../../bench/kit/generator.ts'
import type { Plan, PlannedRequest } from '../../bench/kit/plan.ts'
import { failureOf } from '../kit/wait.ts'

const repo = 'did:plc:abc'
const collection = 'zone.stratos.feed.post'
const cid = `bafyrei${'a'.repeat(52)}`
const letters = '234567abcdefghijklmnopqrstuvwxyz'
const same = 'no JSON, and the same every time'
let commits = 0
const bodies: { readonly text: string; readonly authorization: string | null }[] = []

const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  async fetch(request) {
    const text = await request.text()
    bodies.push({ text, authorization: request.headers.get('authorization') })
    const { pathname } = new URL(request.url)
    if (pathname === '/same') return new Response(same)
    if (pathname === '/fails') return Response.json({ error: 'Oops' }, { status: 500 })
    const rev = pathname === '/stale' ? '2222222222222' : nextRev()
    const uri = `at://${pathname === '/elsewhere' ? 'did:plc:other' : repo}/${collection}/1`
    return Response.json({ uri, cid, commit: { cid, rev } })
  },
})
afterAll(() => server.stop(true))

describe('the load generator', () => {
  test('counts answers a request, with those of the warm-up', async () => {
    commits = 0
    const seen = await drive(plan([request('/good')], { seconds: 0.2 }), process.pid)
    expect(seen.answered).toEqual([commits])
    expect(seen.times.length).toBeLessThan(commits)
    expect(seen.times.every((time) => time > 0)).toBe(true)
    expect(seen.share).toBeGreaterThan(0)
    expect(seen.ranOut).toBe(false)
  })

  test('does each step once where it is to, and fills in what differs', async () => {
    bodies.length = 0
    const one = { ...request('/good'), headers: { Authorization: 'Bearer <word>' } }
    const body = { ...one, body: '{"number":<count>,"large":"<word>"}' }
    const large = 'x'.repeat(3_000_000)
    const clients = [
      { steps: [[0, 'a'] as const, [0, large.slice(0, 9)] as const], repeats: false },
    ]
    const many = { ...request('/good'), body: JSON.stringify({ large }) }
    const all = [...clients, { steps: [[1] as const], repeats: false }]
    const seen = await drive(
      { ...plan([body, many], { seconds: null }), clients: all },
      process.pid,
    )
    expect(seen.answered).toEqual([2, 1])
    const filled = bodies.filter(({ text }) => text.length < 100)
    expect(filled).toEqual([
      { text: '{"number":0,"large":"a"}', authorization: 'Bearer a' },
      { text: '{"number":1,"large":"xxxxxxxxx"}', authorization: 'Bearer xxxxxxxxx' },
    ])
    expect(bodies.some(({ text }) => text === JSON.stringify({ large }))).toBe(true)
  })

  test('ends for all when one client has nothing left to ask', async () => {
    const clients = [
      { steps: [[0] as const], repeats: false },
      { steps: Array.from({ length: 100_000 }, () => [0] as const), repeats: false },
    ]
    const unhurried = { ...plan([request('/good')], { seconds: 20 }), clients, warmUpSeconds: 0 }
    const seen = await drive(unhurried, process.pid)
    expect(seen.ranOut).toBe(true)
    expect(seen.seconds).toBeLessThan(10)
  })

  test('sends no more than the pace that it is given', async () => {
    const paced = { ...plan([request('/good')], { seconds: 0.5 }), perSecond: 100 }
    const seen = await drive(paced, process.pid)
    expect(seen.times.length).toBeGreaterThanOrEqual(40)
    expect(seen.times.length).toBeLessThanOrEqual(51)
  })

  test('holds bytes against those that were looked into before', async () => {
    const bytes = (sha256: string): PlannedRequest => {
      return { ...request('/same'), expected: { kind: 'bytes', sha256 } }
    }
    const good = plan([bytes(Bun.SHA256.hash(same, 'hex'))], { seconds: 0.1 })
    expect((await drive(good, process.pid)).times.length).toBeGreaterThan(1)
    const bad = plan([bytes(Bun.SHA256.hash('others', 'hex'))], { seconds: 0.1 })
    expect(String(await failureOf(drive(bad, process.pid)))).toContain('/same: 200')
  })

  for (const [path, why] of [
    ['/fails', '500'],
    ['/elsewhere', 'did:plc:other'],
    ['/stale', 'did not grow'],
  ] as const) {
    test(`refuses a wrong answer: ${path}`, async () => {
      const failure = await failureOf(drive(plan([request(path)], { seconds: 0.2 }), process.pid))
      expect(String(failure)).toContain(why)
    })
  }
})

function request(path: string): PlannedRequest {
  const expected = { kind: 'commit', repo, collection, records: 'one' } as const
  return { verb: 'POST', path, headers: {}, body: '{}', expected }
}

function plan(
  requests: readonly PlannedRequest[],
  { seconds }: { readonly seconds: number | null },
): Plan {
  return {
    port: server.port ?? 0,
    requests,
    clients: [{ steps: [[0]], repeats: true }],
    warmUpSeconds: seconds === null ? 0 : 0.1,
    seconds,
    perSecond: null,
  }
}

/** TIDs in order. */
function nextRev(): string {
  commits += 1
  let text = ''
  for (let rest = commits, place = 0; place < 13; place++, rest = Math.floor(rest / 32)) {
    text = `${letters.charAt(rest % 32)}${text}`
  }
  return text
}
