import type { AtUri, Did } from '../src/atproto/syntax.ts'
import { seed } from '../test/kit/seed.ts'
import { drive } from './kit/generator.ts'
import { benchDid } from './kit/people.ts'
import type { PlannedClient, PlannedRequest } from './kit/plan.ts'
import { collection, putPosts } from './kit/posts.ts'
import { figuresLine, figuresOf, listOption, numberOption, option, print } from './kit/report.ts'
import { Service } from './kit/service.ts'

/**
 * Reads over HTTP against a service process of its own, with the development bearer; the load comes
 * from a process of its own, too, which checks every answer.
 * Usage: bun bench/read.ts [--seconds 5] [--rounds 1] [--load get,hydrate,list] [--shards 2]
 *   [--binary dist/stratos] [--large 100000] [--profile folder]
 * Several binaries, separated by commas, are measured in turns.
 */
const actors = 64
const postsOfActor = 100
const large = numberOption('large', { fallback: 100_000, max: 1_000_000 })
const seconds = numberOption('seconds', { fallback: 5, max: 60 })
const rounds = numberOption('rounds', { fallback: 1, max: 100 })
const binaries = option('binary')?.split(',') ?? [undefined]
const kinds = listOption('load', ['get', 'hydrate', 'list'])

interface Load {
  readonly name: string
  readonly kind: (typeof kinds)[number]
  readonly clients: number
  readonly bearer: Did
  readonly requests: readonly Question[]
}

type Question = Pick<PlannedRequest, 'verb' | 'path' | 'body' | 'expected'>

await using service = await Service.prepare()
const loads = (await prepare()).filter(({ kind }) => kinds.includes(kind))
for (let round = 0; round < rounds; round++) {
  for (const binary of binaries) {
    print(`\n${binary ?? 'from source'}, ${seconds} s a load`)
    await service.start(environment(), { binary })
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
  const lists = { kind: 'list', clients: 32 } as const
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

function gets(posts: readonly (readonly AtUri[])[]): Question[] {
  return mixed(posts.flat()).map((uri) => {
    const [repo = '', , rkey = ''] = uri.slice('at://'.length).split('/')
    return get('getRecord', { repo, collection, rkey }, [uri])
  })
}

/** Each of 5 posts of 20 people, in no order. */
function hydrations(posts: readonly (readonly AtUri[])[]): Question[] {
  return Array.from({ length: 64 }, () => {
    const people = mixed(posts).slice(0, 20)
    const uris = mixed(people.flatMap((ofOne) => mixed(ofOne).slice(0, 5)))
    const path = '/xrpc/zone.stratos.repo.hydrateRecords'
    return { verb: 'POST', path, body: JSON.stringify({ uris }), expected: records(uris) }
  })
}

function get(
  name: string,
  params: Readonly<Record<string, string>>,
  expected: readonly string[],
): Question {
  const query = new URLSearchParams(params).toString()
  return {
    verb: 'GET',
    path: `/xrpc/zone.stratos.repo.${name}?${query}`,
    body: null,
    expected: records(expected),
  }
}

function records(uris: readonly string[]): PlannedRequest['expected'] {
  return { kind: 'records', uris }
}

async function measure({ name, clients, bearer, requests: questions }: Load): Promise<void> {
  const { port, pid } = service
  const requests = questions.map((question) => ({
    ...question,
    headers: { Authorization: `Bearer ${bearer}` },
  }))
  const plan = { port, requests, clients: dealt(requests.length, clients), perSecond: null }
  const driven = await drive({ ...plan, warmUpSeconds: seconds / 5, seconds }, pid)
  print(figuresLine(figuresOf(name, driven), 'reads'))
}

/** Each client has a share of the requests; of fewer than there are clients, some ask the same. */
function dealt(requests: number, clients: number): PlannedClient[] {
  const steps = Array.from({ length: Math.max(requests, clients) }, (_, index) => index)
  return Array.from({ length: clients }, (_, client) => ({
    steps: steps
      .filter((index) => index % clients === client)
      .map((index) => [index % requests] as const),
    repeats: true,
  }))
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
