import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { verifyRepoCar } from '@atproto/repo'
import { type Did, parseDid } from '../src/atproto/syntax.ts'
import { freePort } from '../test/kit/port.ts'
import { isFields, textOf } from '../test/kit/xrpc.ts'
import { seed } from '../test/kit/seed.ts'

/**
 * createRecord over HTTP against a service process of its own, with the development bearer.
 * Usage: bun bench/write.ts [--seconds 5] [--synchronous full,normal] [--binary dist/stratos]
 */
const actorsMax = 64
const root = fileURLToPath(new URL('../', import.meta.url))
const collection = 'zone.stratos.feed.post'
/** Of Linux, as `getconf CLK_TCK` says. */
const ticksPerSecond = 100

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
  const dataDir = await mkdtemp(join(tmpdir(), 'stratos-bench-'))
  const port = await freePort()
  const serviceDid = `did:web:localhost%3A${port}`
  const dids = Array.from({ length: actorsMax }, (_, index) => benchDid(index))
  const people = dids.map((did) => ({ did, boundaries: [`${serviceDid}/a`] }))
  await seed(dataDir, serviceDid, people)
  const binary = option('binary')
  const command = binary === undefined ? [process.execPath, join(root, 'src/main.ts')] : [binary]
  const server = Bun.spawn([...command, 'serve'], {
    env: {
      PATH: process.env['PATH'] ?? '',
      STRATOS_PORT: String(port),
      STRATOS_DATA_DIR: dataDir,
      STRATOS_DEV_MODE: 'true',
      STRATOS_ALLOWED_DOMAINS: 'a,b',
      STRATOS_SQLITE_SYNCHRONOUS: synchronous,
      LOG_LEVEL: 'error',
      ...(option('shards') === undefined ? {} : { STRATOS_SHARDS: option('shards') }),
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const target = { url: `http://localhost:${port}`, serviceDid, dids }
  try {
    await untilReady(target.url)
    print(`\nsynchronous=${synchronous}, ${binary ?? 'from source'}, ${seconds} s a load`)
    const written = new Map<Did, number>()
    await run({ ...target, written }, { name: 'warm-up', clients: [2, 3] }, Math.min(2, seconds))
    for (const load of loads) {
      const before = cpuSeconds(server.pid)
      const own = process.cpuUsage()
      const result = await run({ ...target, written }, load, seconds)
      const cpu = cpuSeconds(server.pid) - before
      const spent = process.cpuUsage(own)
      report(load, { ...result, cpu, ownCpu: (spent.user + spent.system) / 1e6 })
    }
    await verify(target, written)
    print(`resident ${(rss(server.pid) / 1024).toFixed(0)} MB, ${await bytesOnDisk(dataDir)}`)
  } finally {
    server.kill('SIGTERM')
    await server.exited
    await rm(dataDir, { recursive: true, force: true })
  }
}

interface Result {
  readonly writes: number
  readonly seconds: number
  readonly sortedMs: readonly number[]
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
  return { writes: times.length, seconds: took, sortedMs: times.sort((a, b) => a - b) }
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

function report(load: Load, result: Result & { readonly cpu: number; readonly ownCpu: number }) {
  const { writes, seconds: took, sortedMs, cpu, ownCpu } = result
  const at = (share: number) =>
    (sortedMs[Math.floor((sortedMs.length - 1) * share)] ?? Number.NaN).toFixed(2)
  print(
    `${load.name.padEnd(22)} ${(writes / took).toFixed(0).padStart(6)} writes/s   ` +
      `p50 ${at(0.5)} p95 ${at(0.95)} p99 ${at(0.99)} ms   ` +
      `server ${((cpu / writes) * 1000).toFixed(2)} CPU s per 1000, ` +
      `load generator at ${((ownCpu / took) * 100).toFixed(0)} % of a core`,
  )
}

/** User and system time of a process so far. */
function cpuSeconds(pid: number): number {
  const fields = readText(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

function rss(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readText(`/proc/${pid}/status`))?.[1])
}

function readText(path: string): string {
  return readFileSync(path, 'utf8')
}

async function bytesOnDisk(folder: string): Promise<string> {
  let bytes = 0
  for (const name of await readdir(folder, { recursive: true })) {
    bytes += (await stat(join(folder, name))).size
  }
  return `${(bytes / 1024 / 1024).toFixed(1)} MB on disk`
}

async function untilReady(url: string): Promise<void> {
  const end = performance.now() + 10_000
  while (performance.now() < end) {
    const ready = await fetch(`${url}/ready`).catch(() => undefined)
    if (ready?.ok === true) return
    await Bun.sleep(20)
  }
  throw new Error('the service did not become ready within 10 s')
}

function benchDid(index: number): Did {
  return parseDid(
    `did:plc:${index
      .toString(32)
      .padStart(24, 'a')
      .replaceAll(/[^a-z2-7]/g, 'z')}`,
  )
}

function option(name: string): string | undefined {
  const index = process.argv.indexOf(`--${name}`)
  return index < 0 ? undefined : process.argv[index + 1]
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}
