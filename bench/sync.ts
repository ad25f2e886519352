import { verifyRecords } from '@atproto/repo'
import type { AtUri, Did } from '../src/atproto/syntax.ts'
import { Exporting, type Exported, peakMbOf, takeExport } from './kit/exported.ts'
import { drive } from './kit/generator.ts'
import { benchDid, seedPeople } from './kit/people.ts'
import type { PlannedRequest } from './kit/plan.ts'
import { collection, putPosts } from './kit/posts.ts'
import { takeImport, writesOf } from './kit/imported.ts'
import { settle } from './kit/process.ts'
import { median, printRatios } from './kit/ratio.ts'
import {
  figuresLine,
  figuresOf,
  listOption,
  numberOption,
  option,
  ownShare,
  percentiles,
  print,
} from './kit/report.ts'
import { Service } from './kit/service.ts'
import { type Exporter, verifyRepos } from './kit/verify.ts'
import { applying, creating, type WritePlan, type WriteTarget } from './kit/write-plans.ts'
import { addWritten, stratosExporter, stratosTarget } from './kit/write-run.ts'
import { hasPeers } from './peers/install.ts'
import { Pds } from './peers/pds.ts'

/**
 * Whole repos and proofs. See README.md.
 * Usage: bun bench/sync.ts [--load export,others,import,peers,proofs] [--large 100000] [--small 10000]
 *   [--rounds 7] [--seconds 5] [--shards 1] [--binary dist/stratos]
 */
const loads = listOption('load', ['export', 'others', 'import', 'peers', 'proofs'])
const large = numberOption('large', { fallback: 100_000, max: 1_000_000 })
const small = numberOption('small', { fallback: 10_000, max: 20_000 })
const rounds = numberOption('rounds', { fallback: 7, max: 50 })
const seconds = numberOption('seconds', { fallback: 5, max: 60 })
const shards = option('shards')
const build = { binary: option('binary') }

/** Wanted of a repo of 100,000 records. */
const wanted = {
  mbPerSecond: 50,
  aboveIdleMb: 80,
  firstRecordMs: 400,
  p99Ms: 50,
  proofs: 2_000,
  imports: 20_000,
}
const importRounds = 3
const othersCount = 16
const postsOfOther = 50
/** Of others: a pace at which they do not wait for each other. */
const othersPerSecond = 200
const proofClients = 16
const recordsOfWrite = 200

await using service = await Service.prepare()
const owner = benchDid(0)
const others = Array.from({ length: othersCount }, (_, index) => benchDid(index + 1))
const written = new Map<Did, number>()
const { uris, othersUris } = await prepare()
const exporter = stratosExporter(service)
await start()
if (loads.includes('export')) await measureExport()
if (loads.includes('others')) await measureOthers()
if (loads.includes('import')) await measureImport()
if (loads.includes('peers')) await measurePeers()
if (loads.includes('proofs')) await measureProofs()
print(await verifyRepos(exporter, written))
print('every answer was as expected')

async function prepare(): Promise<{ uris: AtUri[]; othersUris: AtUri[] }> {
  print(`filling a repo with ${large} records, and ${othersCount} small ones`)
  await seedPeople(service, [owner, ...others], build)
  const { dataDir } = service
  const boundaries = () => [`${service.did}/a`]
  const own = await putPosts({ dataDir, did: owner, count: large }, boundaries)
  written.set(owner, large)
  const all: AtUri[] = []
  for (const did of others) {
    all.push(...(await putPosts({ dataDir, did, count: postsOfOther }, boundaries)))
    written.set(did, postsOfOther)
  }
  return { uris: own, othersUris: all }
}

function environment(): Record<string, string> {
  const threads = shards === undefined ? {} : { STRATOS_SHARDS: shards }
  return { STRATOS_ALLOWED_DOMAINS: 'a,b', ...threads }
}

async function start(): Promise<void> {
  await service.start(environment(), build)
  await settle(service.pid)
}

/** Back to back in one process, then each in one that was just started. */
async function measureExport(): Promise<void> {
  const idleMb = service.residentMb()
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  const { result: all, peakMb } = await peakMbOf(service.pid, async () => {
    const found: Exported[] = []
    for (let round = 0; round < rounds; round++) found.push(await takeExport(exporter, owner))
    return found
  })
  const share = ownShare(cpu, performance.now() - startedAt)
  const cold: Exported[] = []
  for (let round = 0; round < rounds; round++) {
    await service.stop()
    await start()
    cold.push(await takeExport(exporter, owner))
  }
  if (new Set([...all, ...cold].map(({ bytes, sum }) => `${bytes} ${sum}`)).size > 1) {
    throw new Error('two exports of one repo differ')
  }
  const mb = (all[0]?.bytes ?? 0) / 1e6
  printFigure(`export of ${mb.toFixed(1)} MB`, all.map(rateOf), 'MB/s', wanted.mbPerSecond)
  printFigure(
    'first record',
    all.map(({ firstRecordMs }) => firstRecordMs),
    'ms',
  )
  const first = cold.map(({ firstRecordMs }) => firstRecordMs)
  printFigure('first record of a cold process', first, 'ms', -wanted.firstRecordMs)
  printFigure('memory above idle', [peakMb - idleMb], 'MB', -wanted.aboveIdleMb)
  print(`idle ${idleMb.toFixed(0)} MB; ${share}`)
}

function rateOf({ bytes, ms }: Exported): number {
  return bytes / 1000 / ms
}

/** Others write and read at a pace, alone and beside exports. */
async function measureOthers(): Promise<void> {
  const target = stratosTarget(service)
  const reads = readsOf(othersUris, target)
  for (const [name, plan] of [
    ['writes', creating(target, others)],
    ['reads', reads],
  ] as const) {
    for (const beside of ['alone', 'beside exports'] as const) {
      const exporting = beside === 'alone' ? undefined : new Exporting(exporter, owner)
      const startedAt = performance.now()
      const driven = await drive(
        {
          port: service.port,
          requests: plan.requests,
          clients: plan.clients,
          warmUpSeconds: seconds / 5,
          seconds,
          perSecond: othersPerSecond,
        },
        service.pid,
      )
      addWritten(written, { effects: plan.effects, answered: driven.answered })
      const bytes = (await exporting?.end()) ?? 0
      const rate = bytes / 1000 / (performance.now() - startedAt)
      const { p99 } = figuresOf(name, driven)
      const note =
        beside === 'alone' ? '' : `, ${rate.toFixed(0)} MB/s; ${verdict(p99, -wanted.p99Ms)}`
      print(`${`${name} of others, ${beside}`.padEnd(34)} ${percentiles(driven.times)}${note}`)
    }
  }
}

/** By a process that was just started, alone; and once more beside writes of others. */
async function measureImport(): Promise<void> {
  const path = `/xrpc/zone.stratos.sync.getRepo?did=${owner}`
  const headers = exporter.headersOf(owner)
  const car = await (await fetch(service.url + path, { headers })).blob()
  const env = environment()
  const importing = { did: owner, car, records: large, serviceDid: service.did, others, env, build }
  const rates: number[] = []
  for (let round = 0; round < importRounds; round++) {
    rates.push((await takeImport(importing, exporter)).recordsPerSecond)
  }
  printFigure(`import of ${large} records`, rates, 'records/s', wanted.imports)
  await takeImport(
    importing,
    exporter,
    writesOf(importing, { seconds, perSecond: othersPerSecond }),
  )
}

function readsOf(of: readonly AtUri[], { headersOf }: WriteTarget): WritePlan {
  const requests = of.map((uri): PlannedRequest => {
    const { did, rkey } = partsOf(uri)
    const query = new URLSearchParams({ repo: did, collection, rkey }).toString()
    return {
      verb: 'GET',
      path: `/xrpc/zone.stratos.repo.getRecord?${query}`,
      headers: headersOf(did),
      body: null,
      expected: { kind: 'records', uris: [uri] },
    }
  })
  return { requests, effects: [], clients: dealt(requests.length, othersCount) }
}

function dealt(requests: number, clients: number): WritePlan['clients'] {
  const steps = Array.from({ length: Math.max(requests, clients) }, (_, index) => index % requests)
  return Array.from({ length: clients }, (_, client) => ({
    steps: steps.filter((_, index) => index % clients === client).map((step) => [step] as const),
    repeats: true,
  }))
}

function partsOf(uri: AtUri) {
  const [did = owner, , rkey = ''] = uri.slice('at://'.length).split('/')
  return { did: benchDidOf(did), rkey }
}

function benchDidOf(text: string): Did {
  const did = [owner, ...others].find((one) => one === text)
  if (did === undefined) throw new Error(`nobody here is ${text}`)
  return did
}

/** A repo of the same number of records at both, written in the same way. */
async function measurePeers(): Promise<void> {
  if (!(await hasPeers())) {
    print('no peers: the official PDS is not installed, `bun bench/peers/main.ts` does it')
    return
  }
  await using pds = await Pds.start()
  const [ours, theirs] = [others[0] ?? owner, await pds.createAccount('exported')]
  const count = Math.ceil(small / recordsOfWrite)
  const writes = [
    { server: service, target: stratosTarget(service), did: ours },
    { server: pds, target: pds.target, did: theirs },
  ]
  const expected = new Map<Did, number>()
  for (const {
    server: { port, pid },
    target,
    did,
  } of writes) {
    const { requests, effects } = applying(target, [did], recordsOfWrite)
    const steps = Array.from({ length: count }, () => [0] as const)
    const clients = [{ steps, repeats: false }]
    const timing = { warmUpSeconds: 0, seconds: null, perSecond: null }
    const { answered } = await drive({ port, requests, clients, ...timing }, pid)
    addWritten(did === ours ? written : expected, { effects, answered })
  }
  const rates: { left: number[]; right: number[] } = { left: [], right: [] }
  const rate = async (of: Exporter, did: Did) => rateOf(await takeExport(of, did))
  for (let round = 0; round <= rounds; round++) {
    const [left, right] = [await rate(exporter, ours), await rate(pds.exporter, theirs)]
    // The first one is what is done for the first time.
    if (round === 0) continue
    rates.left.push(left)
    rates.right.push(right)
  }
  print(`the PDS: ${await verifyRepos(pds.exporter, expected)}`)
  const name = `export of ${count * recordsOfWrite} records`
  printRatios(['stratos MB/s', 'PDS MB/s'], [{ name, ...rates }])
}

/** Of records all over the large repo, by their owner. */
async function measureProofs(): Promise<void> {
  const every = Math.max(1, Math.floor(uris.length / 256))
  const requests: PlannedRequest[] = []
  for (const uri of uris.filter((_, index) => index % every === 0)) {
    const { did, rkey } = partsOf(uri)
    const query = new URLSearchParams({ did, collection, rkey }).toString()
    const path = `/xrpc/com.atproto.sync.getRecord?${query}`
    const headers = exporter.headersOf(did)
    const response = await fetch(service.url + path, { headers })
    if (response.status === 501) {
      print('no proofs: the service has no com.atproto.sync.getRecord')
      return
    }
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    const car = await response.bytes()
    const found = await verifyRecords(car, did, await exporter.signingKeyOf(did))
    if (!found.some((record) => record.rkey === rkey)) throw new Error(`${uri} is not proven`)
    const sha256 = Bun.SHA256.hash(car, 'hex')
    requests.push({ verb: 'GET', path, headers, body: null, expected: { kind: 'bytes', sha256 } })
  }
  const plan = { port: service.port, requests, clients: dealt(requests.length, proofClients) }
  const timing = { warmUpSeconds: seconds / 5, seconds, perSecond: null }
  const figures = figuresOf('proofs', await drive({ ...plan, ...timing }, service.pid))
  print(figuresLine(figures, 'proofs'))
  print(`proofs a second ${verdict(figures.requestsPerSecond, wanted.proofs)}`)
}

/** @param goal at least, or below zero: at most */
function printFigure(name: string, values: readonly number[], unit: string, goal?: number): void {
  const middle = median(values)
  const spread = `(${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)})`
  const note = goal === undefined ? '' : `   ${verdict(middle, goal)}`
  print(`${name.padEnd(34)} ${middle.toFixed(0).padStart(6)} ${unit} ${spread}${note}`)
}

function verdict(value: number, goal: number): string {
  const reached = goal < 0 ? value <= -goal : value >= goal
  const limit = goal < 0 ? `at most ${-goal}` : `at least ${goal}`
  return `${limit}: ${reached ? 'reached' : 'not reached'}`
}
