import { verifyRepoCar } from '@atproto/repo'
import { type Did, parseDid } from '../src/atproto/syntax.ts'
import { isFields, textOf } from '../test/kit/xrpc.ts'
import { seed } from '../test/kit/seed.ts'
import { option, ownShare, percentiles, print } from './report.ts'
import { Service } from './service.ts'

/**
 * createRecord over HTTP against a service process of its own, with the development bearer.
 * Usage: bun bench/write.ts [--seconds 5] [--synchronous full,normal] [--binary dist/stratos]
 */
const actorsMax = 64
const collection = 'zone.stratos.feed.post'

interface Load {
  readonly name: string
  /** For each client that writes in sequence, whose repo it writes to. */
  readonly clients: readonly number[]
}

const loads: readonly Load[] = [
  { name: '1 client in sequence', clients: [0] },
  { name: '64 actors at once', clients: Array.from({ length: actorsMax }, (_, index) => index) },
  { name: '1 actor, 32 writers', clients: Array.from({ length: 32 }, () => 1) },
]

interface Target {
  readonly url: string
  readonly serviceDid: string
  readonly dids: readonly Did[]
}

const seconds = Number(option('seconds') ?? 5)
for (const synchronous of (option('synchronous') ?? 'full,normal').split(',')) {
  await measure(synchronous)
}

async function measure(synchronous: string): Promise<void> {
  await using service = await Service.prepare()
  const { did: serviceDid, url } = service
  const dids = Array.from({ length: actorsMax }, (_, index) => benchDid(index))
  const people = dids.map((did) => ({ did, boundaries: [`${serviceDid}/a`] }))
  await seed(service.dataDir, serviceDid, people)
  const shards = option('shards')
  const binary = option('binary')
  const env = {
    STRATOS_ALLOWED_DOMAINS: 'a,b',
    STRATOS_SQLITE_SYNCHRONOUS: synchronous,
    ...(shards === undefined ? {} : { STRATOS_SHARDS: shards }),
  }
  await service.start(env, binary)
  print(`\nsynchronous=${synchronous}, ${binary ?? 'from source'}, ${seconds} s a load`)
  const target = { url, serviceDid, dids, written: new Map<Did, number>() }
  await run(target, { name: 'warm-up', clients: [2, 3] }, Math.min(2, seconds))
  for (const load of loads) {
    const before = service.cpuSeconds()
    const own = process.cpuUsage()
    const result = await run(target, load, seconds)
    const cpu = service.cpuSeconds() - before
    const { writes, times } = result
    const rate = ((writes / result.seconds) | 0).toString().padStart(6)
    print(
      `${load.name.padEnd(22)} ${rate} writes/s   ${percentiles(times)}   ` +
        `server ${((cpu / writes) * 1000).toFixed(2)} CPU s per 1000, ` +
        ownShare(own, result.seconds * 1000),
    )
  }
  await verify(target, target.written)
  print(
    `resident ${service.residentMb().toFixed(0)} MB, ${(await service.diskMb()).toFixed(1)} MB on disk`,
  )
}

interface Result {
  readonly writes: number
  readonly seconds: number
  readonly times: readonly number[]
}

/** Every client writes as soon as its last write was answered, until the time is over. */
async function run(
  target: Target & { readonly written: Map<Did, number> },
  load: Load,
  runSeconds: number,
): Promise<Result> {
  const times: number[] = []
  const start = performance.now()
  const end = start + runSeconds * 1000
  await Promise.all(
    load.clients.map(async (actor) => {
      const did = target.dids[actor]
      if (did === undefined) throw new Error(`there is no actor ${actor}`)
      while (performance.now() < end) {
        const before = performance.now()
        await create(target, did)
        times.push(performance.now() - before)
        target.written.set(did, (target.written.get(did) ?? 0) + 1)
      }
    }),
  )
  const took = (performance.now() - start) / 1000
  return { writes: times.length, seconds: took, times }
}

async function create({ url, serviceDid }: Target, did: Did): Promise<void> {
  const response = await fetch(`${url}/xrpc/zone.stratos.repo.createRecord`, {
    method: 'POST',
    headers: { authorization: `Bearer ${did}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      repo: did,
      collection,
      record: {
        $type: collection,
        text: 'A small post of the length that people write most often, give or take.',
        createdAt: new Date().toISOString(),
        langs: ['en'],
        boundary: { values: [{ value: `${serviceDid}/a` }] },
      },
    }),
  })
  const answer: unknown = await response.json()
  if (response.ok && isFields(answer) && isFields(answer['commit'])) return
  throw new Error(`${response.status} ${JSON.stringify(answer)}`)
}

/** A fast wrong answer fails: every repo that was written to must verify and be complete. */
async function verify(target: Target, written: ReadonlyMap<Did, number>): Promise<void> {
  let records = 0
  for (const [did, count] of written) {
    const headers = { authorization: `Bearer ${did}` }
    const status = await fetch(`${target.url}/xrpc/zone.stratos.enrollment.status?did=${did}`, {
      headers,
    })
    const enrollment: unknown = await status.json()
    if (!isFields(enrollment)) throw new Error(`no status of ${did}`)
    const signingKey = textOf(enrollment, 'signingKey')
    const car = await fetch(`${target.url}/xrpc/zone.stratos.sync.getRepo?did=${did}`, { headers })
    const repo = await verifyRepoCar(await car.bytes(), did, signingKey)
    if (repo.creates.length !== count) {
      throw new Error(`${did} has ${repo.creates.length} records, ${count} were acknowledged`)
    }
    records += count
  }
  print(`verified ${written.size} repos with all of ${records} acknowledged records`)
}

function benchDid(index: number): Did {
  return parseDid(
    `did:plc:${index
      .toString(32)
      .padStart(24, 'a')
      .replaceAll(/[^a-z2-7]/g, 'z')}`,
  )
}
