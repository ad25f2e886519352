import { readFileSync } from 'node:fs'
import { Authors } from '../src/appview/authors.ts'
import { FeedCursors } from '../src/appview/cursor.ts'
import { feedMethods } from '../src/appview/feed.ts'
import { IndexReads } from '../src/appview/index-reads.ts'
import type { Did } from '../src/atproto/syntax.ts'
import { connectIndex, openIndex } from '../src/indexer/database.ts'
import { createLog } from '../src/lib/log.ts'
import { Identities } from '../src/remote/identity.ts'
import { PostgresServer } from '../test/kit/postgres.ts'
import { Directory, loopbackFetch } from '../test/remote/directory.ts'
import { isFields } from '../test/kit/xrpc.ts'
import {
  boundaryCount,
  boundaryName,
  fillFeedIndex,
  memberBoundaries,
  uriOfPost,
  viewers,
} from './kit/feed-index.ts'
import { benchDid } from './kit/people.ts'
import { numberOption, ownShare, percentile, percentiles, print } from './kit/report.ts'

/**
 * Feeds over an index of many posts, from the call of a method to the text of its answer, at times that
 * are set beforehand. See README.md.
 * Usage: bun bench/feed.ts [--posts 1000000] [--people 1000] [--rate 200] [--seconds 15]
 */
const posts = numberOption('posts', { fallback: 1_000_000, max: 5_000_000 })
const people = numberOption('people', { fallback: 1_000, max: 10_000 })
const rate = numberOption('rate', { fallback: 200, max: 1_000 })
const seconds = numberOption('seconds', { fallback: 15, max: 60 })

const wantedP99Ms = 15
const limit = 50
/** Different calls of one load. */
const callsEach = Math.min(200, Math.ceil(rate * seconds))
/** Of them so many are compared with what a plain statement finds. */
const comparedEach = 2
const size = { posts, people }
const now = new Date()

interface Call {
  readonly method: string
  readonly viewer: Did
  readonly params: Readonly<Record<string, unknown>>
}

/** What the same call must give each time. */
interface Known extends Call {
  readonly uris: string
}

await using server = await PostgresServer.start('synced')
await using directory = new Directory()
const url = await server.database()
await using reads = new IndexReads({ url })
const sql = await openIndex({ url })
/** Reads whole tables. */
const plain = connectIndex({ url, connectionsMax: 1, statementMsMax: 300_000 })
const log = createLog('silent', () => undefined)
const identities = new Identities({
  plcUrl: directory.url,
  fetch: loopbackFetch,
  now: now.getTime.bind(now),
})
const authors = new Authors({ identities, now: now.getTime.bind(now), log, waitMs: 60_000 })
const methods = feedMethods({
  reads,
  identities,
  authors,
  cursors: new FeedCursors(Buffer.from('of a bench')),
  now: now.getTime.bind(now),
})

const beganMs = performance.now()
await fillFeedIndex(sql, size, now)
const fillSeconds = (performance.now() - beganMs) / 1000
print(`${posts} posts in ${boundaryCount} boundaries, stored in ${fillSeconds.toFixed(0)} s`)
// A feed does not wait for them: they are known, as they soon are.
for (let from = 0; from < people; from += 500) {
  const dids = Array.from({ length: Math.min(500, people - from) }, (_, at) => benchDid(from + at))
  await authors.handlesOf(new Set(dids))
}

await measure('getTimeline, of 1 to 5 boundaries', timelines(anybody))
await measure('  its pages 2 to 5', await laterPages(timelines(anybody)))
await measure(
  '  of one of them',
  timelines(anybody, (at) => ({ boundary: boundariesOf(at)[0] })),
)
await measure('getTimeline, of one quiet boundary', timelines(only(viewers.quiet)))
await measure('getTimeline, of one of long ago', timelines(only(viewers.past)))
await measure(`getTimeline, of all ${boundaryCount} boundaries`, timelines(only(viewers.all)))
await measure('  its pages 2 to 5', await laterPages(timelines(only(viewers.all))))
await measure('getAuthorFeed, of 1 to 5 boundaries', authorFeeds(anybody))
await measure(`getAuthorFeed, of all ${boundaryCount} boundaries`, authorFeeds(only(viewers.all)))
await measure(
  'getPostThread, of 30 posts',
  threads((at) => uriOfPost(lastThread(at), size)),
)
await measure(
  'getPostThread, of 1000 answers',
  threads(() => uriOfPost(0, size)),
)
await Promise.all([sql.end(), plain.end()])
print('every answer was the one that was to be given')

function timelines(
  viewerOf: (at: number) => Did,
  paramsOf: (at: number) => Call['params'] = () => ({}),
): Call[] {
  return calls((at) => ({
    method: 'zone.stratos.feed.getTimeline',
    viewer: viewerOf(at),
    params: { limit, ...paramsOf(at) },
  }))
}

function authorFeeds(viewerOf: (at: number) => Did): Call[] {
  return calls((at) => ({
    method: 'zone.stratos.feed.getAuthorFeed',
    viewer: viewerOf(at),
    params: { limit, actor: benchDid((at * 13) % people) },
  }))
}

function threads(uriOf: (at: number) => string): Call[] {
  return calls((at) => ({
    method: 'zone.stratos.feed.getPostThread',
    viewer: benchDid(viewers.all.number),
    params: { uri: uriOf(at) },
  }))
}

function calls(call: (at: number) => Call): Call[] {
  return Array.from({ length: callsEach }, (_, at) => call(at))
}

function anybody(at: number): Did {
  return benchDid(at % people)
}

function only({ number }: { readonly number: number }): (at: number) => Did {
  return () => benchDid(number)
}

/** Those of a call of `anybody`. */
function boundariesOf(at: number): string[] {
  return memberBoundaries(at % people).map(boundaryName)
}

/** The first post of a thread. */
function lastThread(at: number): number {
  return Math.max(0, Math.floor(posts / 30) - 1 - at * 7) * 30
}

async function laterPages(firsts: readonly Call[]): Promise<Call[]> {
  const later: Call[] = []
  for (const [at, call] of firsts.entries()) {
    let params = call.params
    for (let page = 0; page < 1 + (at % 4); page++) {
      const { cursor } = await answerOf({ ...call, params })
      if (typeof cursor === 'string') params = { ...call.params, cursor }
    }
    later.push({ ...call, params })
  }
  return later
}

/** Each at its time, whether those before it were answered or not. */
async function measure(name: string, planned: readonly Call[]): Promise<void> {
  const known: Known[] = []
  for (const call of planned) {
    const uris = urisOf(await answerOf(call))
    if (known.length < comparedEach) await compare(call, uris)
    known.push({ ...call, uris })
  }
  const times: number[] = []
  const running: Promise<void>[] = []
  const cpu = process.cpuUsage()
  const serverCpu = await serverCpuMs()
  const start = performance.now()
  for (let at = 0; at < rate * seconds; at++) {
    const due = start + (at * 1000) / rate
    const early = due - performance.now()
    if (early > 0) await Bun.sleep(early)
    const call = known[at % known.length]
    if (call !== undefined) running.push(ask(call, due).then((ms) => void times.push(ms)))
  }
  await Promise.all(running)
  const tookMs = performance.now() - start
  const p99 = percentile(
    times.toSorted((a, b) => a - b),
    0.99,
  )
  const verdict = p99 <= wantedP99Ms ? 'reached' : 'missed'
  print(
    `${name.padEnd(38)} ${(times.length / (tookMs / 1000)).toFixed(0)}/s   ${percentiles(times)}   ` +
      `wanted p99 ${wantedP99Ms}: ${verdict}   ${await serverShare(serverCpu, tookMs)}, ${ownShare(cpu, tookMs, 'this process')}`,
  )
}

/** Of each process that answers us; of none where the system does not tell. */
async function serverCpuMs(): Promise<Map<number, number>> {
  if (process.platform !== 'linux') return new Map()
  const rows = await plain<{ pid: number }[]>`
    select pid from pg_stat_activity where backend_type = 'client backend'`
  return new Map(
    rows.map(({ pid }) => {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')
      // By user and system, in hundredths of a second.
      return [pid, (Number(fields[13]) + Number(fields[14])) * 10]
    }),
  )
}

/** In percent of a core, by those who were there all the time. */
async function serverShare(before: ReadonlyMap<number, number>, tookMs: number): Promise<string> {
  const after = [...(await serverCpuMs())]
  const spent = after.reduce((sum, [pid, ms]) => sum + ms - (before.get(pid) ?? ms), 0)
  return `server at ${((spent / tookMs) * 100).toFixed(0)}`
}

async function ask(call: Known, due: number): Promise<number> {
  const answer = await answerOf(call)
  const ms = performance.now() - due
  if (urisOf(answer) !== call.uris)
    throw new Error(`${call.method} gave another answer than before`)
  return ms
}

async function answerOf({ method, viewer, params }: Call): Promise<Record<string, unknown>> {
  const asked = methods[method]
  if (asked === undefined) throw new Error(`there is no ${method}`)
  const answer = await asked({ viewer, params })
  // As for the wire, so that its cost is counted.
  JSON.stringify(answer)
  if (!isFields(answer)) throw new Error(`${method} gave no object`)
  return answer
}

/** All URIs of posts in an answer, in order. */
function urisOf(answer: Readonly<Record<string, unknown>>): string {
  return [...JSON.stringify(answer).matchAll(/"uri":"([^"]+)"/g)].map(([, uri]) => uri).join(' ')
}

/** A first page is what a plain statement finds that reads all posts. */
async function compare({ method, viewer, params }: Call, uris: string): Promise<void> {
  if ('cursor' in params || 'uri' in params) {
    if (uris === '') throw new Error(`${method} gave nothing`)
    return
  }
  const { actor = null, boundary = null } = params
  const found = await plain<{ uri: string }[]>`
    select distinct o."sortAt", o.uri from stratos_post_boundary o
    where o.boundary in (
        select name from stratos_enrollment e cross join unnest(e.boundaries) as b (name)
        where e.did = ${viewer}
      )
      and o.boundary = coalesce(${text(boundary)}, o.boundary)
      and o.creator = coalesce(${text(actor)}, o.creator)
      and (o.service, o.creator) in (select service, did from stratos_enrollment)
      and (o.service, o.creator, '') not in (select service, did, path from stratos_takedown)
      and (o.service, o.uri) not in (
        select service, 'at://' || did || '/' || path from stratos_takedown)
    order by o."sortAt" desc, o.uri desc limit ${limit}`
  const right = found.map(({ uri }) => uri).join(' ')
  if (right !== uris) throw new Error(`${method} of ${viewer}: ${uris}, wanted ${right}`)
}

function text(value: unknown): string | null {
  return typeof value === 'string' ? value : null
}
