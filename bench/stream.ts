import { readFileSync } from 'node:fs'
import type { Did } from '../src/atproto/syntax.ts'
import type { HeardStream, PlannedStream } from './kit/listen-plan.ts'
import { Listener } from './kit/listener.ts'
import { benchDid } from './kit/people.ts'
import { putPosts } from './kit/posts.ts'
import { cpuSeconds, residentMb, settle } from './kit/process.ts'
import { listOption, numberOption, option, percentiles, print } from './kit/report.ts'
import { everyonesStream, repoStream, StreamRun } from './kit/stream-run.ts'
import { filling, type WritePlan } from './kit/write-plans.ts'

/**
 * Streams, live and from the log. See README.md.
 * Usage: bun bench/stream.ts [--load latency,burst,backfill,sockets,everyone] [--seconds 5] [--pace 500]
 *   [--readers 100] [--writes 2048] [--events 100000] [--sockets 10000] [--people 5000] [--shards 1]
 *   [--binary dist/stratos]
 */
const loads = listOption('load', ['latency', 'burst', 'backfill', 'sockets', 'everyone'])
const seconds = numberOption('seconds', { fallback: 5, max: 60 })
const latencyPerSecond = numberOption('pace', { fallback: 500, max: 5_000 })
const readers = numberOption('readers', { fallback: 100, max: 100 })
const writes = numberOption('writes', { fallback: 2_048, max: 20_000 })
const events = numberOption('events', { fallback: 100_000, max: 1_000_000 })
const sockets = numberOption('sockets', { fallback: 10_000, max: 20_000 })
const people = numberOption('people', { fallback: 5_000, max: 50_000 })
const options = { build: { binary: option('binary') }, shards: option('shards') }

const wanted = { p99Ms: 10, deliveries: 300_000, backfill: 40_000, residentMb: 400 }
const latencyActors = 16
const burstWriters = 32
/** One person may have so many open. */
const socketsOfPerson = 100
/** Files that a service has open besides sockets: databases with their logs, and its own. */
const otherFiles = 1_000
const everyoneClients = 64
/** So that each of them is read beyond its first event. */
const writesOfEveryone = 2
const secondsMax = 300

for (const load of loads) await measures()[load]()
print('every event was there once, in its order')

function measures(): Record<(typeof loads)[number], () => Promise<void>> {
  return {
    latency: measureLatency,
    burst: measureBurst,
    backfill: measureBackfill,
    sockets: measureSockets,
    everyone: measureEveryone,
  }
}

/** At a pace, from when a post is sent until its event is there. */
async function measureLatency(): Promise<void> {
  await using run = await StreamRun.of(someDids(latencyActors), options)
  await run.start()
  const count = Math.ceil((latencyPerSecond * seconds) / latencyActors)
  const filled = (of: number) =>
    filling(run.target, run.dids, { count: of, clients: latencyActors })
  // What a process does the first time is no load's.
  const warmUp = Math.ceil(count / 5)
  await run.write(filled(warmUp))
  const [owner = benchDid(0)] = run.dids
  const cursors = await cursorsOf(run, 1 + warmUp)
  const own = repoStream(owner, { sockets: 1, commits: count, reading: 'decode' })
  const every = everyonesStream({
    cursors,
    enrollments: latencyActors,
    commits: count * latencyActors,
  })
  await using listener = await listen(run, [own, every])
  const driven = await run.write(filled(count), latencyPerSecond)
  const { streams, share } = await listener.heard()
  print(
    `${latencyPerSecond} writes/s over ${latencyActors} actors`.padEnd(34) +
      ` ${percentiles(driven.times)} until answered; readers at ${percent(share)}`,
  )
  for (const [name, stream] of [
    ['create to event, owner', streams[0]],
    ['create to event, AppView', streams[1]],
  ] as const) {
    const times = lagsOf(stream)
    const note = verdict(percentile99(times), { most: wanted.p99Ms })
    print(`${name.padEnd(34)} ${percentiles(times)}   p99 ${note}`)
  }
  print(await run.verify())
}

/** Live while it is written, and once more from the log for all at once. */
async function measureBurst(): Promise<void> {
  const dids = someDids(1)
  await using run = await StreamRun.of(dids, options)
  await run.start()
  const burst = burstOf(run, Math.ceil(writes / burstWriters))
  await run.write(burst)
  const plain = await run.write(burst)
  const [owner = benchDid(0)] = dids
  const before = run.written.get(owner) ?? 0
  const count = before / 2
  const { [owner]: cursor = 0 } = await cursorsOf(run, 1 + before)
  const all = { sockets: readers, commits: count, reading: 'count' } as const
  await using live = await listen(run, [repoStream(owner, all)])
  const driven = await run.write(burst)
  const heard = await live.heard()
  const cpu = cpuSeconds(run.service.pid)
  const rate = (stream: HeardStream | undefined, fromMs: number) =>
    (readers * count * 1000) / ((stream?.lastMs ?? Infinity) - fromMs)
  printRate(`${count} commits to ${readers} readers`, 'deliveries', {
    rate: rate(heard.streams[0], heard.streams[0]?.firstMs ?? 0),
    least: wanted.deliveries,
    note:
      `writes ${(count / driven.seconds).toFixed(0)}/s, ` +
      `server ${driven.cpuSeconds.toFixed(2)} CPU s, ` +
      `without readers ${plain.cpuSeconds.toFixed(2)}, readers at ${percent(heard.share)}`,
  })
  await using late = await listen(run, [repoStream(owner, { ...all, cursor })])
  const { streams, share } = await late.heard()
  const lateCpu = cpuSeconds(run.service.pid) - cpu
  if (streams[0]?.bytes !== heard.streams[0]?.bytes)
    throw new Error('the log differs from the live')
  printRate(`the same from a cursor`, 'deliveries', {
    rate: rate(streams[0], streams[0]?.askedMs ?? 0),
    least: wanted.deliveries,
    note: `server ${lateCpu.toFixed(2)} CPU s, readers at ${percent(share)}`,
  })
  print(await run.verify())
}

/** One reader that begins at the oldest event. */
async function measureBackfill(): Promise<void> {
  const dids = someDids(1)
  await using run = await StreamRun.of(dids, options)
  const [did = benchDid(0)] = dids
  print(`filling a repo with ${events} commits`)
  const { dataDir } = run.service
  await putPosts({ dataDir, did, count: events, postsOfCommit: 1 }, () => [`${run.service.did}/a`])
  await run.start()
  const stream = { sockets: 1, commits: events + 1, cursor: 0, reading: 'count' } as const
  for (const name of ['from cursor 0', 'once more']) {
    const before = cpuSeconds(run.service.pid)
    await using listener = await listen(run, [repoStream(did, stream)])
    const { streams, share } = await listener.heard()
    const cpu = cpuSeconds(run.service.pid) - before
    const [{ askedMs, lastMs, bytes } = { askedMs: 0, lastMs: Infinity, bytes: 0 }] = streams
    printRate(`${events} events ${name}`, 'events', {
      rate: (events * 1000) / (lastMs - askedMs),
      least: wanted.backfill,
      note:
        `${(bytes / 1000 / (lastMs - askedMs)).toFixed(0)} MB/s, ` +
        `server ${cpu.toFixed(2)} CPU s, reader at ${percent(share)}`,
    })
  }
  run.written.set(did, events)
  print(await run.verify())
}

/** Of people who wait for what comes. */
async function measureSockets(): Promise<void> {
  const most = Math.floor((filesMax() - otherFiles) / socketsOfPerson)
  const owners = Math.min(Math.ceil(sockets / socketsOfPerson), most)
  await using run = await StreamRun.of(someDids(owners), options)
  await run.start()
  const count = Math.min(sockets, owners * socketsOfPerson)
  if (count < sockets) print(`the limit of ${filesMax()} open files leaves room for ${count}`)
  const idleMb = run.service.residentMb()
  const each = Math.ceil(count / owners)
  await using listener = await listen(
    run,
    run.dids.map((did) => repoStream(did, { sockets: each, commits: 0, reading: 'count' })),
  )
  await settle(run.service.pid)
  const openMb = residentMb(run.service.pid)
  await listener.heard()
  print(
    `${`${each * owners} open sockets`.padEnd(34)} ${openMb.toFixed(0).padStart(6)} MB resident, ` +
      `${idleMb.toFixed(0)} MB before   ${verdict(openMb, { most: wanted.residentMb })}`,
  )
}

/** A reader who has all of many people, while they write as fast as it goes. */
async function measureEveryone(): Promise<void> {
  await using run = await StreamRun.of(someDids(people), options)
  await run.start()
  const cursors = await cursorsOf(run, 1)
  await run.service.stop()
  await run.start()
  const count = writesOfEveryone
  const openedMs = performance.now()
  await using listener = await listen(run, [
    everyonesStream({ cursors, enrollments: people, commits: people * count }),
  ])
  const beginMs = performance.now() - openedMs
  const plan = filling(run.target, run.dids, { count, clients: everyoneClients })
  const driven = await run.write(plan)
  const { streams, share } = await listener.heard()
  const [stream] = streams
  if (run.dids.some((did) => stream?.counts[did] !== count))
    throw new Error('somebody lacks events')
  const { sentMs = [], receivedMs = [] } = stream ?? {}
  const endMs = Math.max(...sentMs)
  const behind = receivedMs.filter((ms) => ms > endMs).length
  print(
    `${`${people * count} writes of ${people} actors`.padEnd(34)} ` +
      `${((people * count) / driven.seconds).toFixed(0).padStart(6)} writes/s, ` +
      `all told who is there after ${beginMs.toFixed(0)} ms; reader at ${percent(share)}`,
  )
  print(`${'create to event'.padEnd(34)} ${percentiles(lagsOf(stream))}`)
  print(
    `${'behind the last write'.padEnd(34)} ${behind} events, ` +
      `${((stream?.lastMs ?? Infinity) - endMs).toFixed(0)} ms`,
  )
}

/** Where each log ends, by reading all of it. */
async function cursorsOf(run: StreamRun, commitsOfEach: number): Promise<Record<string, number>> {
  const { length } = run.dids
  const commits = commitsOfEach * length
  await using listener = await listen(run, [
    everyonesStream({ cursors: {}, enrollments: length, commits }),
  ])
  const { streams } = await listener.heard()
  return { ...streams[0]?.cursors }
}

async function listen({ service }: StreamRun, streams: readonly PlannedStream[]) {
  return await Listener.start({ port: service.port, streams, secondsMax })
}

/** All at once into one repo. */
function burstOf({ target, dids }: StreamRun, count: number): WritePlan {
  const plan = filling(target, dids, { count, clients: 1 })
  const clients = Array.from({ length: burstWriters }, () => plan.clients).flat()
  return { ...plan, clients }
}

function lagsOf(stream: HeardStream | undefined): number[] {
  const { sentMs = [], receivedMs = [] } = stream ?? {}
  return receivedMs.map((ms, index) => ms - (sentMs[index] ?? Number.NaN))
}

function someDids(count: number): Did[] {
  return Array.from({ length: count }, (_, index) => benchDid(index))
}

/** Of this process, and so of those that it starts. */
function filesMax(): number {
  const limits = readFileSync('/proc/self/limits', 'utf8')
  return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? 0)
}

function printRate(
  name: string,
  unit: string,
  at: { readonly rate: number; readonly least: number; readonly note: string },
): void {
  const { rate, least, note } = at
  const value = rate.toFixed(0).padStart(6)
  print(`${name.padEnd(34)} ${value} ${unit}/s   ${verdict(rate, { least })}; ${note}`)
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} % of a core`
}

function percentile99(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * 0.99)] ?? Infinity
}

function verdict(value: number, goal: { readonly least: number } | { readonly most: number }) {
  const reached = 'least' in goal ? value >= goal.least : value <= goal.most
  const limit = 'least' in goal ? `at least ${goal.least}` : `at most ${goal.most}`
  return `${limit}: ${reached ? 'reached' : 'not reached'}`
}
