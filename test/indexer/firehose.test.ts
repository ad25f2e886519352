import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { createServer } from 'node:net'
import { parseDid } from '../../src/atproto/syntax.ts'
import { connectIndex, type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { Firehose, type FirehoseParts } from '../../src/indexer/firehose.ts'
import { firehoseCursor, keepFirehoseCursor } from '../../src/indexer/firehose-cursor.ts'
import { frameBytesMax } from '../../src/indexer/firehose-frame.ts'
import { parseFirehoseUrl } from '../../src/indexer/firehose-url.ts'
import type { Hint } from '../../src/indexer/hint-queue.ts'
import { createLog } from '../../src/lib/log.ts'
import { Gate } from '../kit/gate.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { commitFrame, errorFrame, frameOf, RelayDouble } from './relay-double.ts'

const service = parseDid('did:web:stratos.test%3A3100')
const alice = parseDid('did:plc:aliceaaaaaaaaaaaaaaaaaaa')
const bob = parseDid('did:plc:bobaaaaaaaaaaaaaaaaaaaaa')
const path = 'zone.stratos.actor.enrollment/did:web:stratos.test:3100'
const other = 'zone.stratos.actor.enrollment/did:web:other.test'
const quick = { saveMs: 5, windowMs: 5, againMs: 2, againMsMax: 20 }

let server: PostgresServer
let url: string
let sql: IndexSql
let relay: RelayDouble
let lines: string[]

beforeAll(async () => {
  server = await PostgresServer.start()
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
})
beforeEach(async () => {
  url = await server.database()
  sql = await openIndex({ url })
  relay = new RelayDouble()
  lines = []
})
afterEach(async () => {
  await relay[Symbol.asyncDispose]()
  await sql.end()
})

/** Follows the relay until it is disposed of. */
function follow(over: Partial<FirehoseParts> & { readonly url?: string } = {}) {
  const hints: Hint[] = []
  const stopping = new AbortController()
  const firehose = new Firehose({
    at: parseFirehoseUrl(over.url ?? relay.url, { allowPrivateNetwork: true }),
    services: new Set([service]),
    sql,
    log: createLog('debug', (line) => lines.push(line)),
    tell: async (hint) => void hints.push(hint),
    allowPrivateNetwork: true,
    ...over,
    timing: { ...quick, ...over.timing },
  })
  const ended = firehose.run(stopping.signal)
  const stop = async () => {
    stopping.abort()
    await ended
  }
  const told = (count: number) =>
    eventually(`hint ${count}`, () => (hints.length >= count ? true : undefined), { everyMs: 2 })
  return { firehose, hints, told, ended, stop, [Symbol.asyncDispose]: stop }
}

const nameOf = (url = relay.url) => parseFirehoseUrl(url, { allowPrivateNetwork: true }).name

async function kept(seq: number): Promise<void> {
  const look = async () => ((await firehoseCursor(sql, nameOf())) === seq ? true : undefined)
  await eventually(`cursor ${seq}`, look, { everyMs: 5 })
}

describe('no hint comes of', () => {
  test('what is broken, hostile or of others; the next one comes all the same', async () => {
    await using at = follow()
    await relay.connected(1)
    const mine = [{ repo: alice, path }]
    const good = commitFrame(1, mine)
    const broken = [
      new Uint8Array(),
      new Uint8Array([0xff]),
      good.slice(0, 40),
      Buffer.concat([good, new Uint8Array(1)]),
      'a text',
      frameOf('#commit', { ops: 'none', seq: 2, repo: alice }),
      frameOf('#commit', { seq: -1 }),
      frameOf('#commit', {}),
      commitFrame(3, [{ repo: 'nobody', path }]),
      commitFrame(4, [{ repo: alice, path, action: 'burn' }]),
      commitFrame(
        5,
        Array.from({ length: 201 }, () => ({ repo: alice, path: other })),
      ),
      // An array that says it has 2^32 items, and one within the other for a megabyte.
      Buffer.concat([
        frameOf('#commit', {}).subarray(0, -1),
        Buffer.from('a1636f70739affffffff', 'hex'),
      ]),
      Buffer.concat([frameOf('#commit', {}).subarray(0, -1), Buffer.alloc(1024 * 1024, 0x81)]),
      commitFrame(6, mine, { blocks: { $bytes: 'A'.repeat(1024) } }).subarray(0, -3),
    ]
    for (const bytes of broken) relay.tell(0, bytes)
    relay.tell(7, new Uint8Array(frameBytesMax + 1))
    relay.tell(8, commitFrame(8, [{ repo: alice, path: other }]))
    relay.tell(9, commitFrame(9, [{ repo: alice, path: `x${path}` }]))
    relay.tell(10, commitFrame(10, [{ repo: alice, path: 'zone.stratos.actor.enrollment' }]))
    relay.tell(11, frameOf('#identity', { seq: 11, did: alice, time: 't' }))
    relay.tell(12, frameOf('#later', { seq: 12, ops: [{ action: 'create', path }] }))
    relay.tell(13, commitFrame(13, [{ repo: bob, path }]))
    await at.told(1)
    expect(at.hints).toEqual([{ did: bob, service, action: 'create' }])
    expect(at.firehose.counts).toEqual({ connections: 1, events: 6, broken: 15, hints: 1 })
    // Of many broken frames the log has a few lines.
    expect(lines.filter((line) => line.includes('firehose.broken'))).toHaveLength(10)
    expect(lines.join('')).not.toContain(alice)
  })
})

test('creates, changes and deletions are told, with the service of each', async () => {
  const second = parseDid('did:web:other.test')
  await using at = follow({ services: new Set([service, second]) })
  await relay.connected(1)
  relay.tell(
    1,
    commitFrame(1, [
      { repo: alice, path },
      { repo: alice, path: other, action: 'delete' },
    ]),
  )
  relay.tell(2, commitFrame(2, [{ repo: bob, path, action: 'update' }], { prevData: null }))
  await at.told(3)
  expect(at.hints).toEqual([
    { did: alice, service, action: 'create' },
    { did: alice, service: second, action: 'delete' },
    { did: bob, service, action: 'update' },
  ])
})

describe('the cursor', () => {
  test('is asked for by nobody who comes first, and by whoever comes again', async () => {
    {
      await using at = follow()
      await relay.connected(1)
      relay.tell(5, commitFrame(5, [{ repo: alice, path }]))
      relay.tell(6, commitFrame(6, []))
      await at.told(1)
      await kept(6)
    }
    relay.tell(7, commitFrame(7, [{ repo: bob, path }]))
    await using at = follow()
    await at.told(1)
    expect(relay.cursors).toEqual([null, '6'])
    expect(at.hints).toEqual([{ did: bob, service, action: 'create' }])
  })

  test('stays before a hint that is under way; killed then, it is told again', async () => {
    const gate = new Gate()
    {
      await using at = follow({ tell: async () => await gate.pass() })
      await relay.connected(1)
      relay.tell(3, commitFrame(3, []))
      relay.tell(4, commitFrame(4, [{ repo: alice, path }]))
      relay.tell(5, commitFrame(5, []))
      await gate.reached
      await kept(3)
      expect(at.firehose.counts.events).toBe(3)
    }
    expect(await firehoseCursor(sql, nameOf())).toBe(3)
    await using at = follow()
    await at.told(1)
    expect(at.hints).toEqual([{ did: alice, service, action: 'create' }])
    await kept(5)
  })

  test('has no password and no query, nor has the log', async () => {
    const at = `ws://operator:word%21@127.0.0.1:${relay.port}/?token=hush`
    await using follower = follow({ url: at })
    await relay.connected(1)
    relay.tell(1, commitFrame(1, [{ repo: alice, path }]))
    await follower.told(1)
    await kept(1)
    relay.cut()
    await relay.connected(2)
    expect(relay.headers.map((headers) => headers.get('authorization'))).toEqual(
      Array(2).fill(`Basic ${Buffer.from('operator:word!').toString('base64')}`),
    )
    const rows = await sql`select url from stratos_firehose_cursor`
    expect(rows.map((row) => row['url'])).toEqual([
      `ws://127.0.0.1:${relay.port}/xrpc/com.atproto.sync.subscribeRepos`,
    ])
    for (const secret of ['operator', 'word', 'hush']) expect(lines.join('')).not.toContain(secret)
    expect(lines.join('')).toContain('firehose.ended')
  })

  test('that is ahead of a stream that began anew is given up', async () => {
    await keepFirehoseCursor(sql, { url: nameOf(), seq: 1_000, nowMs: 0 })
    relay.greeting = [errorFrame('FutureCursor')]
    await using at = follow()
    await relay.connected(1)
    relay.greeting = []
    relay.cut()
    await relay.connected(2)
    expect(relay.cursors.slice(0, 1)).toEqual(['1000'])
    await eventually('no cursor', () => (relay.cursors.at(-1) === null ? true : undefined))
    await eventually('hint', () => {
      relay.tell(1, commitFrame(1, [{ repo: alice, path }]))
      return at.hints.length > 0 ? true : undefined
    })
    await kept(1)
  })

  test('that is too old costs what lies between, and says so', async () => {
    await keepFirehoseCursor(sql, { url: nameOf(), seq: 2, nowMs: 0 })
    relay.greeting = [frameOf('#info', { name: 'OutdatedCursor' })]
    relay.tell(900, commitFrame(900, [{ repo: alice, path }]))
    await using at = follow()
    await at.told(1)
    expect(lines.join('')).toContain('OutdatedCursor')
  })
})

test('across cuts at any time no hint is lost, and each comes once a connection at most', async () => {
  await using at = follow({ timing: { windowMs: 1 } })
  await relay.connected(1)
  const dids = Array.from({ length: 300 }, (_, index) =>
    parseDid(
      `did:plc:${String(index)
        .padStart(24, 'a')
        .replaceAll(/[0189]/g, 'z')}${index}`,
    ),
  )
  for (const [index, repo] of dids.entries()) {
    relay.tell(index + 1, commitFrame(index + 1, [{ repo, path }]))
    if (index % 60 === 30) {
      // From its first event on it knows where to go on.
      await at.told(1)
      const before = relay.cursors.length
      relay.cut()
      await relay.connected(before + 1)
    }
  }
  await kept(300)
  const counted = new Set(at.hints.map(({ did }) => did))
  expect([...counted].toSorted()).toEqual(dids.toSorted())
  expect(at.hints.length).toBeLessThanOrEqual(dids.length * 2)
})

test('a hint that is refused is told again, and is not passed by', async () => {
  let tries = 0
  const hints: Hint[] = []
  const tell = async (hint: Hint) => {
    if (++tries < 3) throw new Error('not now')
    hints.push(hint)
  }
  await using _ = follow({ tell })
  await relay.connected(1)
  relay.tell(8, commitFrame(8, [{ repo: alice, path }]))
  await kept(8)
  expect(hints).toHaveLength(1)
  expect(tries).toBe(3)
})

test('an account that changes its record without end gives few hints, and the last state', async () => {
  await using at = follow({ timing: { windowMs: 200 } })
  await relay.connected(1)
  for (let seq = 1; seq <= 2_000; seq++) {
    const action = seq === 2_000 ? 'delete' : 'update'
    relay.tell(seq, commitFrame(seq, [{ repo: alice, path, action }]))
  }
  await kept(2_000)
  expect(at.firehose.counts.hints).toBe(2_000)
  expect(at.hints.length).toBeLessThan(30)
  expect(at.hints.at(-1)?.action).toBe('delete')
})

describe('a relay', () => {
  test('that says why it ends is asked again', async () => {
    relay.greeting = [errorFrame('ConsumerTooSlow')]
    await using _ = follow()
    await eventually('connections', () => (relay.cursors.length > 2 ? true : undefined))
    expect(lines.join('')).toContain('error ConsumerTooSlow')
  })

  test('that answers no ping is left', async () => {
    const mute = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.once('data', (head) => {
        const key = /sec-websocket-key: (\S+)/i.exec(String(head))?.[1] ?? ''
        const accept = new Bun.SHA1().update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        const upgrade = 'HTTP/1.1 101 .\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        socket.write(`${upgrade}Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`)
      })
    })
    const listening = Promise.withResolvers<void>()
    mute.listen(0, '127.0.0.1', () => listening.resolve())
    await listening.promise
    const address = mute.address()
    const port = address === null || typeof address === 'string' ? 0 : address.port
    try {
      const timing = { silenceMs: 20, answerMs: 20 }
      await using _ = follow({ url: `ws://127.0.0.1:${port}`, timing })
      await eventually('end', () => (lines.join('').includes('silent') ? true : undefined))
    } finally {
      mute.close()
    }
  })

  test('that is quiet, but there, is kept', async () => {
    await using at = follow({ timing: { silenceMs: 10, answerMs: 10_000 } })
    await relay.connected(1)
    await Bun.sleep(100)
    relay.tell(1, commitFrame(1, [{ repo: alice, path }]))
    await at.told(1)
    expect(relay.cursors).toHaveLength(1)
  })

  test('at a private address is reached in closed networks alone', async () => {
    const lookup = async () => ['93.184.216.34', '127.0.0.1']
    const at = { url: 'wss://relay.example.com', lookup }
    await using _ = follow({ ...at, allowPrivateNetwork: false })
    await eventually('refusal', () =>
      lines.join('').includes('no public address') ? true : undefined,
    )
  })
})

describe('an index', () => {
  test('that takes no cursor for a while costs no hint', async () => {
    const impatient = connectIndex({ url, statementMsMax: 20 })
    const lock = await sql.reserve()
    try {
      await using at = follow({ sql: impatient })
      await relay.connected(1)
      await lock`begin`
      await lock`lock table stratos_firehose_cursor`
      relay.tell(1, commitFrame(1, [{ repo: alice, path }]))
      await at.told(1)
      const failed = () => (lines.join('').includes('firehose.cursor.failed') ? true : undefined)
      await eventually('failure', failed)
      await lock`rollback`
      await kept(1)
    } finally {
      lock.release()
      await impatient.end()
    }
  })

  test('that lacks its table ends it', async () => {
    await sql`drop table stratos_firehose_cursor`
    const at = follow()
    expect(await failureOf(at.ended)).toMatchObject({ code: '42P01' })
  })
})
