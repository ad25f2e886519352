import { readFileSync } from 'node:fs'
import { encode } from '../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../src/atproto/cid.ts'
import { commitFrame } from '../src/atproto/stream-frame.ts'
import { type Did, parseDid } from '../src/atproto/syntax.ts'
import { nextTid } from '../src/atproto/tid.ts'
import { openIndex } from '../src/indexer/database.ts'
import { decodeFrame } from '../src/indexer/decode.ts'
import type { IndexEvent } from '../src/indexer/event.ts'
import { Intake } from '../src/indexer/intake.ts'
import { IndexWriter } from '../src/indexer/writer.ts'
import { PostgresServer } from '../test/kit/postgres.ts'
import { benchDid } from './kit/people.ts'
import { numberOption, print } from './kit/report.ts'

/**
 * From frames of a stream to rows that are committed, on a server of its own that syncs its disk.
 * See README.md.
 * Usage: bun bench/indexer.ts [--posts 100000] [--people 1000] [--batch 500]
 */
const posts = numberOption('posts', { fallback: 100_000, max: 1_000_000 })
const people = numberOption('people', { fallback: 1_000, max: 100_000 })
const batch = numberOption('batch', { fallback: 500, max: 1_000 })

const wantedPerSecond = 8_000
const aimPerSecond = 20_000
const boundaries = 50
/** A post answers the one before it as often as that. */
const replyEvery = 3
const secondsMax = 300
/** USER_HZ of Linux. */
const ticksPerSecond = 100
const service = parseDid('did:web:stratos.test')
const firstMs = Date.UTC(2025, 0, 1)

await using server = await PostgresServer.start('synced')
const url = await server.database()
const sql = await openIndex({ url })
await using writer = new IndexWriter({ index: { url } })
const intake = new Intake(writer, service)
const dids = Array.from({ length: people }, (_, index) => benchDid(index))
for (const did of dids) {
  const member = { serviceUrl: 'https://stratos.test', enrolledAt: new Date(), boundaries: [] }
  await writer.setEnrollment({ service, did, ...member })
}
const frames = makeFrames()
const bytes = frames.reduce((sum, frame) => sum + frame.length, 0)
print(`${posts} posts of ${people} people in ${boundaries} boundaries, ${bytes >> 20} MB of frames`)
await measure()
await sql.end()

async function measure(): Promise<void> {
  const startedMs = performance.now()
  const cpu = process.cpuUsage()
  const serverBefore = await serverCpuSeconds()
  let decodingMs = 0
  for (let start = 0; start < frames.length; start += batch) {
    const beganMs = performance.now()
    const events = frames.slice(start, start + batch).map(eventOf)
    decodingMs += performance.now() - beganMs
    for (const event of events) intake.event(event)
    await intake.flush()
    if (performance.now() - startedMs > secondsMax * 1000) throw new Error('it takes too long')
  }
  await intake.stored()
  const seconds = (performance.now() - startedMs) / 1000
  const spent = process.cpuUsage(cpu)
  const serverSpent = (await serverCpuSeconds()) - serverBefore
  const rate = posts / seconds
  print(
    `frames to committed rows   ${rate.toFixed(0)} posts/s   wanted ${wantedPerSecond}: ` +
      `${rate >= wantedPerSecond ? 'reached' : 'missed'}, aim ${aimPerSecond}`,
  )
  print(
    `decoding ${((decodingMs / 1000 / seconds) * 100).toFixed(0)} % of the time, ` +
      `${((decodingMs * 1000) / posts).toFixed(1)} us a post; this process ` +
      `${((spent.user + spent.system) / 10_000 / seconds).toFixed(0)} % of a core`,
  )
  const [wal] = await sql<{ bytes: number; records: number; images: number }[]>`
    select wal_bytes::bigint as bytes, wal_records as records, wal_fpi as images from pg_stat_wal`
  print(
    `server ${((serverSpent * 1_000_000) / posts).toFixed(0)} us of CPU a post, ` +
      `${((serverSpent / seconds) * 100).toFixed(0)} % of a core; ` +
      `${((wal?.bytes ?? 0) / posts).toFixed(0)} bytes of WAL a post, ` +
      `${((wal?.records ?? 0) / posts).toFixed(1)} records, ${wal?.images ?? 0} pages as a whole`,
  )
  await verify()
}

/** Of all processes of the server that are connected or work beside those. */
async function serverCpuSeconds(): Promise<number> {
  const rows = await sql<{ pid: number }[]>`select pid from pg_stat_activity`
  const ticks = rows.map(({ pid }) => {
    // The name before may hold spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)?.split(' ') ?? []
    return Number(fields[11]) + Number(fields[12])
  })
  return ticks.reduce((sum, one) => sum + one, 0) / ticksPerSecond
}

async function verify(): Promise<void> {
  const [row] = await sql<{ posts: number; places: number; cursors: number; parked: number }[]>`
    select (select count(*)::integer from stratos_post) as posts,
      (select count(*)::integer from stratos_post_boundary) as places,
      (select count(*)::integer from stratos_sync_cursor) as cursors,
      (select count(*)::integer from stratos_parked_event) as parked`
  const expected = {
    posts,
    places: posts + Math.floor(posts / 2),
    cursors: Math.min(posts, people),
    parked: 0,
  }
  if (!Bun.deepEquals({ ...row }, expected)) throw new Error(`the rows are ${JSON.stringify(row)}`)
  print('every post is there, in its boundaries, and every cursor')
}

function eventOf(frame: Uint8Array): IndexEvent {
  const found = decodeFrame(frame, service)
  if (found.kind !== 'commit') throw new Error(`a ${found.kind} is no commit`)
  return found
}

/** One post each, of one person after the other; every other post is in two boundaries. */
function makeFrames(): Uint8Array[] {
  let before: { readonly uri: string; readonly cid: string } | undefined
  return Array.from({ length: posts }, (_, index) => {
    const did: Did = dids[index % people] ?? benchDid(0)
    const time = new Date(firstMs + index * 1000).toISOString()
    const rev = nextTid({ nowMs: firstMs + index * 1000, clockId: 0 })
    const named = index % 2 === 0 ? [index] : [index, index + 1]
    const reply =
      index % replyEvery === 0 || before === undefined
        ? {}
        : { reply: { root: { ...before }, parent: { ...before } } }
    const record = encode({
      $type: 'zone.stratos.feed.post',
      text: `Post ${index}, of the length that people write most often, with an é in it.`,
      createdAt: time,
      langs: ['en'],
      ...reply,
      boundary: {
        $type: 'zone.stratos.boundary.defs#Domains',
        values: named.map((number) => ({ value: `${service}/b${number % boundaries}` })),
      },
      salt: { $bytes: 'nFERjvLLiw9qm45JrqH9QQ' },
    })
    const cid = cidToString(cidForCbor(record))
    const path = `zone.stratos.feed.post/${rev}`
    before = { uri: `at://${did}/${path}`, cid }
    const ops = [{ action: 'create', path, cid, record } as const]
    return commitFrame({ seq: index + 1, did, time, rev, ops })
  })
}
