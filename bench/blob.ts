import { BlobClient } from './kit/blobs.ts'
import { peakMbOf } from './kit/exported.ts'
import { benchDid, seedPeople } from './kit/people.ts'
import { residentMb, settle } from './kit/process.ts'
import { listOption, numberOption, option, ownShare, percentiles, print } from './kit/report.ts'
import { Service } from './kit/service.ts'

/**
 * Blobs up and down, on disk. See README.md.
 * Usage: bun bench/blob.ts [--load upload,download,memory] [--small 1] [--large 50] [--clients 4] [--seconds 5]
 *   [--megabytes 4000] [--shards 1] [--binary dist/stratos]
 */
const loads = listOption('load', ['upload', 'download', 'memory'])
/** In MB; small ones, and large ones. */
const small = numberOption('small', { fallback: 1, max: 50 })
const large = numberOption('large', { fallback: 50, max: 50 })
const clients = numberOption('clients', { fallback: 4, max: 10 })
const seconds = numberOption('seconds', { fallback: 5, max: 60 })
/** Of one load: what is uploaded stays on the disk until the end. */
const megabytes = numberOption('megabytes', { fallback: 4_000, max: 20_000 })
const build = { binary: option('binary') }
const shards = option('shards')

const wanted = { mbPerSecond: 400, aboveIdleMb: 32 }
const people = 16

await using service = await Service.prepare()
const dids = Array.from({ length: people }, (_, index) => benchDid(index))
await seedPeople(service, dids, build)
await start()
for (const size of new Set([small, large])) {
  for (const count of new Set([1, clients])) {
    if (loads.includes('upload')) await measureUploads(size, count)
    if (loads.includes('download')) await measureDownloads(size, count)
  }
}
if (loads.includes('memory')) await measureMemory()
print('every blob had its bytes')

async function start(): Promise<void> {
  const env = { STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_BLOB_QUOTA_BYTES: '1000000000000' }
  await service.start(
    { ...env, ...(shards === undefined ? {} : { STRATOS_SHARDS: shards }) },
    build,
  )
}

async function measureUploads(size: number, count: number): Promise<void> {
  const senders = dids.map((did) => new BlobClient(service, did, size * 1e6))
  await first(senders).upload()
  await measure(`upload of ${size} MB, ${count} at once`, { size, count }, async (turn) => {
    await senders[turn % people]?.upload()
  })
  // Whoever cannot read them back has not got them.
  const sample = first(senders)
  await sample.download(await sample.post(), 'all')
}

async function measureDownloads(size: number, count: number): Promise<void> {
  const reader = new BlobClient(service, dids[0] ?? benchDid(0), size * 1e6)
  const cid = await reader.post()
  await reader.download(cid, 'all')
  await measure(`download of ${size} MB, ${count} at once`, { size, count }, async () => {
    await reader.download(cid, 'length')
  })
}

/** By so many clients, until the time is over or there is enough. */
async function measure(
  name: string,
  { size, count }: { readonly size: number; readonly count: number },
  run: (turn: number) => Promise<void>,
): Promise<void> {
  await settle(service.pid)
  const times: number[] = []
  const before = process.cpuUsage()
  const startedAt = performance.now()
  const most = Math.max(count, Math.floor(megabytes / size))
  let turn = 0
  const client = async () => {
    while (turn < most && performance.now() - startedAt < seconds * 1000) {
      const at = performance.now()
      await run(turn++)
      times.push(performance.now() - at)
    }
  }
  await Promise.all(Array.from({ length: count }, client))
  const tookMs = performance.now() - startedAt
  const rate = (times.length * size * 1000) / tookMs
  const verdict = rate >= wanted.mbPerSecond ? 'reached' : 'not reached'
  print(
    `${name.padEnd(34)} ${rate.toFixed(0)} MB/s   at least ${wanted.mbPerSecond}: ${verdict}; ` +
      `${percentiles(times)} each, ${ownShare(before, tookMs)}`,
  )
}

/** A transfer alone, and several at once, of a service that has moved one small blob before. */
async function measureMemory(): Promise<void> {
  for (const count of new Set([1, clients])) {
    await service.stop()
    await start()
    const moving = dids.slice(0, count).map((did) => new BlobClient(service, did, large * 1e6))
    const warm = new BlobClient(service, dids.at(-1) ?? benchDid(0), 1_000)
    await warm.download(await warm.post(), 'all')
    await settle(service.pid)
    const idleMb = residentMb(service.pid)
    const up = await peakMbOf(service.pid, () => Promise.all(moving.map((one) => one.post())))
    const down = await peakMbOf(service.pid, () =>
      Promise.all(moving.map((one, index) => one.download(up.result[index] ?? '', 'length'))),
    )
    for (const [name, { peakMb }] of [['upload', up] as const, ['download', down] as const]) {
      const eachMb = (peakMb - idleMb) / count
      const verdict = eachMb <= wanted.aboveIdleMb ? 'reached' : 'not reached'
      print(
        `${`memory of ${name}s, ${count} at once`.padEnd(34)} ${eachMb.toFixed(0)} MB above idle ` +
          `each   at most ${wanted.aboveIdleMb}: ${verdict}`,
      )
    }
  }
}

function first<One>([one]: readonly One[]): One {
  if (one === undefined) throw new Error('there is nobody')
  return one
}
