import { fileURLToPath } from 'node:url'
import type { AtUri, Did } from '../src/atproto/syntax.ts'
import { seed } from '../test/kit/seed.ts'
import { benchDid, collection, putPosts } from './read-data.ts'
import type { Plan, PlannedRequest, Seen } from './read-plan.ts'
import { option, percentiles, print } from './report.ts'
import { Service } from './service.ts'

/**
 * Reads over HTTP against a service process of its own, with the development bearer; the load comes
 * from a process of its own, too, which checks every answer.
 * Usage: bun bench/read.ts [--seconds 5] [--rounds 1] [--load get,hydrate,list] [--shards 2]
 *   [--binary dist/stratos] [--large 100000] [--profile folder]
 * Several binaries, separated by commas, are measured in turns.
 */
const actors = 64
const postsOfActor = 100
const large = Number(option('large') ?? 100_000)
const seconds = Number(option('seconds') ?? 5)
const rounds = Number(option('rounds') ?? 1)
const binaries = option('binary')?.split(',') ?? [undefined]
const wantedLoads = option('load')?.split(',')

interface Load {
  readonly name: string
  readonly kind: string
  readonly clients: number
  readonly bearer: Did
  readonly requests: readonly PlannedRequest[]
}

await using service = await Service.prepare()
const loads = (await prepare()).filter(({ kind }) => wantedLoads?.includes(kind) ?? true)
for (let round = 0; round < rounds; round++) {
  for (const binary of binaries) {
    print(`\n${binary ?? 'from source'}, ${seconds} s a load`)
    await service.start(environment(), binary)
    for (const load of loads) await measure(load)
    print(`resident ${service.residentMb().toFixed(0)} MB`)
    await service.stop()
  }
}

/** Everybody writes to boundary a, where the reader is; the last repo is the large one. */
async function prepare(): Promise<Load[]> {
  const { dataDir, did: serviceDid } = service
  const boundary = (name: string) => `${serviceDid}/${name}`
  const dids = Array.from({ length: actors }, (_, index) => benchDid(index))
  const [reader, ofOne, ofHundred, owner] = [benchDid(-1), benchDid(-2), benchDid(-3), benchDid(-4)]
  await seed(dataDir, serviceDid, [
    ...[...dids, reader].map((did) => ({ did, boundaries: [boundary('a')] })),
    { did: ofOne, boundaries: [boundary('one')] },
    { did: ofHundred, boundaries: [boundary('hundred')] },
    { did: owner, boundaries: ['one', 'hundred', 'rest'].map(boundary) },
  ])
  const posts: AtUri[][] = []
  for (const did of dids) {
    posts.push(await putPosts({ dataDir, did, count: postsOfActor }, () => [boundary('a')]))
  }
  const every = Math.floor(large / 100)
  const all = await putPosts({ dataDir, did: owner, count: large }, (index) =>
    [index === 0 ? 'one' : index % every === 1 ? 'hundred' : 'rest'].map(boundary),
  )
  const hundred = all.filter((_, index) => index % every === 1).toReversed()
  const list = (limit: number, expected: readonly AtUri[]) => [
    get('listRecords', { repo: owner, collection, limit: String(limit) }, expected),
  ]
  const lists = { kind: 'list', clients: 32 }
  return [
    { name: 'getRecord', kind: 'get', clients: 32, bearer: reader, requests: gets(posts) },
    {
      name: 'hydrateRecords, 100 of 20',
      kind: 'hydrate',
      clients: 16,
      bearer: reader,
      requests: hydrations(posts),
    },
    { ...lists, name: 'listRecords, sees 1', bearer: ofOne, requests: list(1, all.slice(0, 1)) },
    {
      ...lists,
      name: 'listRecords, 1 of 100',
      bearer: ofHundred,
      requests: list(1, hundred.slice(0, 1)),
    },
    { ...lists, name: 'listRecords, all 100', bearer: ofHundred, requests: list(100, hundred) },
  ]
}

function gets(posts: readonly (readonly AtUri[])[]): PlannedRequest[] {
  return mixed(posts.flat()).map((uri) => {
    const [repo = '', , rkey = ''] = uri.slice('at://'.length).split('/')
    return get('getRecord', { repo, collection, rkey }, [uri])
  })
}

/** Each of 5 posts of 20 people, in no order. */
function hydrations(posts: readonly (readonly AtUri[])[]): PlannedRequest[] {
  return Array.from({ length: 64 }, () => {
    const people = mixed(posts).slice(0, 20)
    const uris = mixed(people.flatMap((ofOne) => mixed(ofOne).slice(0, 5)))
    const path = '/xrpc/zone.stratos.repo.hydrateRecords'
    return { verb: 'POST', path, body: JSON.stringify({ uris }), expected: uris }
  })
}

function get(
  name: string,
  params: Readonly<Record<string, string>>,
  expected: readonly string[],
): PlannedRequest {
  const query = new URLSearchParams(params).toString()
  return { verb: 'GET', path: `/xrpc/zone.stratos.repo.${name}?${query}`, body: null, expected }
}

async function measure({ name, clients, bearer, requests }: Load): Promise<void> {
  const plan: Plan = { port: service.port, bearer, clients, seconds, requests }
  const child = Bun.spawn(
    [process.execPath, fileURLToPath(new URL('read-load.ts', import.meta.url))],
    {
      stdin: new Blob([JSON.stringify(plan)]),
      stdout: 'pipe',
      stderr: 'pipe',
    },
  )
  const output = new Response(child.stdout).text()
  let cpuBefore = 0
  let said = ''
  for await (const chunk of child.stderr) {
    said += Buffer.from(chunk).toString('utf8')
    // First the warm-up begins, then what counts.
    cpuBefore = service.cpuSeconds()
  }
  const cpu = service.cpuSeconds() - cpuBefore
  if ((await child.exited) !== 0) throw new Error(said)
  const { times, seconds: took, share }: Seen = JSON.parse(await output)
  const rate = (times.length / took).toFixed(0).padStart(6)
  print(
    `${name.padEnd(26)} ${rate}/s   ${percentiles(times)}   ` +
      `server ${((cpu / times.length) * 1000).toFixed(3)} CPU s per 1000, ` +
      `load generator at ${(share * 100).toFixed(0)} % of a core`,
  )
}

function environment(): Record<string, string> {
  const shards = option('shards')
  const profile = option('profile')
  return {
    STRATOS_ALLOWED_DOMAINS: 'a,one,hundred,rest',
    ...(shards === undefined ? {} : { STRATOS_SHARDS: shards }),
    ...(profile === undefined ? {} : { BUN_OPTIONS: `--cpu-prof-md --cpu-prof-dir=${profile}` }),
  }
}

function mixed<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item)
}
