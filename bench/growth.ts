import type { Did } from '../src/atproto/syntax.ts'
import { drive } from './kit/generator.ts'
import { benchDid, seedPeople } from './kit/people.ts'
import { keyBetween, putPosts } from './kit/posts.ts'
import { settle } from './kit/process.ts'
import { median, ratioOf } from './kit/ratio.ts'
import { type Figures, figuresOf, listOption, numberOption, option, print } from './kit/report.ts'
import { Service } from './kit/service.ts'
import { verifyRepos } from './kit/verify.ts'
import { inserting, type WritePlan } from './kit/write-plans.ts'
import { addWritten, stratosExporter, stratosTarget } from './kit/write-run.ts'

/**
 * What a write costs as its repo grows, and as people become many. See README.md.
 * Usage: bun bench/growth.ts [--part repo,people] [--writes 400] [--rounds 3] [--large 100000]
 *   [--people 10000] [--synchronous normal] [--shards 2] [--binary dist/stratos]
 */
const parts = listOption('part', ['repo', 'people'])
const writes = numberOption('writes', { fallback: 400, max: 1000 })
const rounds = numberOption('rounds', { fallback: 3, max: 5 })
const large = numberOption('large', { fallback: 100_000, max: 100_000 })
const people = numberOption('people', { fallback: 10_000, max: 100_000 })
const [synchronous = 'normal'] = listOption('synchronous', ['normal', 'full'])
const shards = option('shards')
const build = { binary: option('binary') }

/** All of them, for both kinds of keys, fit into the handles that a service holds by default. */
const reposOfSizeMax = 100
const growthMost = 1.5
/** A service of many people has more to look through when it starts. */
const startedMsMax = 60_000
const peopleAtOnce = 1_000
const warmUpWrites = 200
const [from, to] = [1_000, 100_000]
const sizes = [10, 100, from, 10_000, to].filter((size) => size <= large)
const keyKinds = ['new TIDs', 'TIDs between'] as const

/** Repos that began at one size, all written to by one kind of keys. */
interface Repos {
  readonly size: number
  readonly keys: (typeof keyKinds)[number]
  readonly dids: readonly Did[]
  readonly figures: Figures[]
}

/** Writes what is done for the first time. */
const nobody = benchDid(-1)
const written = new Map<Did, number>()
if (parts.includes('repo')) await measureRepos()
if (parts.includes('people')) await measurePeople()
print('every answer was as expected')

/** Rounds go through all sizes, so that a slow while of the machine is no size's. */
async function measureRepos(): Promise<void> {
  await using service = await Service.prepare()
  const all = await prepareRepos(service)
  await start(service)
  await send(service, inserting(stratosTarget(service), [nobody], { count: warmUpWrites }))
  print(`${rounds} rounds of ${writes} writes a size and kind of keys, synchronous=${synchronous}`)
  for (let round = 1; round <= rounds; round++) {
    for (const repos of all) await measureSize(service, repos)
    print(`round ${round} of ${rounds} is done`)
  }
  for (const repos of all) printSize(repos)
  for (const keys of keyKinds) printGrowth(all.filter((repos) => repos.keys === keys))
  print(await verifyRepos(stratosExporter(service), written))
  written.clear()
}

/** So many of each size that none grows to more than about twice of it. */
async function prepareRepos(service: Service): Promise<Repos[]> {
  let count = 0
  const all = sizes.flatMap((size) => {
    const wanted = Math.min(reposOfSizeMax, Math.ceil((rounds * writes) / size))
    return keyKinds.map((keys): Repos => {
      const dids = Array.from({ length: wanted }, () => benchDid(count++))
      return { size, keys, dids, figures: [] }
    })
  })
  print(`enrolling ${count} people, and filling their repos`)
  await seedPeople(service, [nobody, ...all.flatMap(({ dids }) => dids)], build)
  const { dataDir } = service
  for (const { size, dids } of all) {
    for (const did of dids) {
      await putPosts({ dataDir, did, count: size }, () => [`${service.did}/a`])
      written.set(did, size)
    }
  }
  return all
}

async function measureSize(service: Service, { size, keys, dids, figures }: Repos): Promise<void> {
  const target = stratosTarget(service)
  const keyOf = keys === 'new TIDs' ? undefined : () => keyBetween(size)
  // Trees are built when a repo is first touched: that is no write's cost here.
  await send(service, inserting(target, dids, { count: dids.length, keyOf }))
  const driven = await send(service, inserting(target, dids, { count: writes, keyOf }))
  figures.push(figuresOf(`${size}`, driven))
}

function printSize({ size, keys, dids, figures }: Repos): void {
  const grown = Math.max(...dids.map((did) => written.get(did) ?? 0))
  const middle = (of: (one: Figures) => number, digits: number) =>
    median(figures.map(of)).toFixed(digits)
  print(
    `${`${size} records, ${keys}`.padEnd(30)} p50 ${middle(({ p50 }) => p50, 3)} ` +
      `p95 ${middle(({ p95 }) => p95, 3)} ms   ` +
      `server ${middle(({ cpuPer1000 }) => cpuPer1000, 3)} CPU s per 1000   ` +
      `(${dids.length} of them, at the end of up to ${grown} records)`,
  )
}

function printGrowth(all: readonly Repos[]): void {
  const small = all.find(({ size }) => size === from)
  const big = all.find(({ size }) => size === to)
  if (small === undefined || big === undefined) return
  const text = (of: (one: Figures) => number) => {
    const { middle, least, most } = ratioOf({
      left: big.figures.map(of),
      right: small.figures.map(of),
    })
    return `${middle.toFixed(2)}x (${least.toFixed(2)} to ${most.toFixed(2)})`
  }
  const wanted = big.keys === 'new TIDs' ? `, to be at most ${growthMost}x` : ''
  print(
    `from ${from} to ${to} records, ${big.keys}: time ${text(({ p50 }) => p50)}, ` +
      `CPU ${text(({ cpuPer1000 }) => cpuPer1000)}${wanted}`,
  )
}

/** The same service again and again, with ten times more people in it. */
async function measurePeople(): Promise<void> {
  await using service = await Service.prepare()
  const dids: Did[] = []
  for (const count of [10, 100, 1_000, 10_000, 100_000].filter((one) => one <= people)) {
    await enrollUpTo(service, dids, count)
    const startMs = await start(service)
    const startCpu = await settle(service.pid, startedMsMax)
    const target = stratosTarget(service)
    const anybody = Array.from({ length: writes }, () => randomOf(dids))
    // The service's own first times, and the first touch of this one person, are no write's cost.
    await send(service, inserting(target, dids.slice(0, 1), { count: warmUpWrites }))
    const one = await send(service, inserting(target, dids.slice(0, 1), { count: writes }))
    const any = await send(service, inserting(target, anybody, { count: writes }))
    const figures = [figuresOf('one of them writes', one), figuresOf('anybody writes', any)]
    for (const { name, p50, p95, cpuPer1000 } of figures) {
      print(
        `${`${count} people, ${name}`.padEnd(36)} p50 ${p50.toFixed(3)} p95 ${p95.toFixed(3)} ms   ` +
          `server ${cpuPer1000.toFixed(3)} CPU s per 1000`,
      )
    }
    print(
      `start ${startMs.toFixed(0)} ms and then ${startCpu.toFixed(2)} CPU s in the background, ` +
        `resident ${service.residentMb().toFixed(0)} MB`,
    )
    print(await verifyRepos(stratosExporter(service), written))
    await service.stop()
  }
}

async function enrollUpTo(service: Service, dids: Did[], count: number): Promise<void> {
  while (dids.length < count) {
    const lot = Math.min(peopleAtOnce, count - dids.length)
    const added = Array.from({ length: lot }, (_, at) => benchDid(dids.length + at))
    await seedPeople(service, added, build)
    dids.push(...added)
    print(`enrolled ${dids.length} of ${count} people`)
  }
}

function randomOf(dids: readonly Did[]): Did {
  const did = dids[Math.floor(Math.random() * dids.length)]
  if (did === undefined) throw new Error('a choice among nobody')
  return did
}

async function start(service: Service): Promise<number> {
  const env = { STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_SQLITE_SYNCHRONOUS: synchronous }
  return await service.start(
    { ...env, ...(shards === undefined ? {} : { STRATOS_SHARDS: shards }) },
    build,
  )
}

async function send({ port, pid }: Service, { requests, clients, effects }: WritePlan) {
  const timing = { warmUpSeconds: 0, seconds: null, perSecond: null }
  const driven = await drive({ port, requests, clients, ...timing }, pid)
  addWritten(written, { effects, answered: driven.answered })
  return driven
}
