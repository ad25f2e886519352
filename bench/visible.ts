import { PostgresServer } from '../test/kit/postgres.ts'
import { privatePost, postCollection } from '../test/kit/post.ts'
import { SeededStratos } from '../test/kit/seeded.ts'
import { serviceToken } from '../test/kit/token.ts'
import { type Answer, fieldsOf, listOf, textOf } from '../test/kit/xrpc.ts'
import { numberOption, percentiles, print } from './kit/report.ts'

/**
 * From when a post is sent until it is in the timeline of somebody else, through service, stream,
 * indexer, PostgreSQL and AppView, while others write at a pace. See README.md.
 * Usage: bun bench/visible.ts [--posts 300] [--people 16] [--pace 50]
 */
const posts = numberOption('posts', { fallback: 300, max: 10_000 })
const people = numberOption('people', { fallback: 16, max: 1_000 })
const pace = numberOption('pace', { fallback: 50, max: 1_000 })

const wantedMs = 250
const lookEveryMs = 2
const waitMsMax = 10_000
const secondsMax = 300
const timeline = 'zone.stratos.feed.getTimeline'

const names = Array.from({ length: people }, (_, index) => `p${index}`)
await using server = await PostgresServer.start('synced')
await using stratos = await SeededStratos.start({
  people: Object.fromEntries(names.map((name) => [name, ['a']])),
  env: { STRATOS_INDEX_POSTGRES_URL: await server.database() },
  around: (command) => [...command.slice(0, -1), 'all'],
})
const authorization = `Bearer ${await serviceToken(
  stratos.person('p0'),
  {
    aud: stratos.did,
    lxm: timeline,
  },
  { claims: { exp: Math.floor(Date.now() / 1000) + 3_000 } },
)}`

await seen(await write('p1'))
const stopped = new AbortController()
const others = background()
const times: number[] = []
const beganMs = performance.now()
for (let post = 0; post < posts; post++) {
  const sentMs = performance.now()
  await seen(await write(names[1 + (post % (people - 1))] ?? 'p1'))
  times.push(performance.now() - sentMs)
  if (performance.now() - beganMs > secondsMax * 1000) throw new Error('it takes too long')
}
stopped.abort()
const written = await others
const seconds = (performance.now() - beganMs) / 1000
const sorted = times.toSorted((left, right) => left - right)
const p99 = sorted[Math.floor(sorted.length * 0.99)] ?? 0
print(
  `create to visible in a timeline   ${percentiles(times)}   wanted p99 ${wantedMs}: ` +
    `${p99 <= wantedMs ? 'reached' : 'missed'}; others wrote ${(written / seconds).toFixed(0)}/s`,
)
print(`each of ${posts} posts was there, in a timeline of somebody else`)

async function write(name: string): Promise<string> {
  const { did } = stratos.person(name)
  const record = privatePost('A post of the usual length, that somebody is waiting for.', [
    stratos.boundary('a'),
  ])
  const input = { repo: did, collection: postCollection, record }
  return textOf(ok(await stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })), 'uri')
}

async function seen(uri: string): Promise<void> {
  for (const end = performance.now() + waitMsMax; performance.now() < end;) {
    const answer = await stratos.call(timeline, { params: { limit: 20 }, authorization })
    // At the start nothing was heard yet.
    const feed = answer.status === 503 ? [] : listOf(ok(answer), 'feed')
    if (feed.some((item) => textOf(fieldsOf(item, 'post'), 'uri') === uri)) return
    await Bun.sleep(lookEveryMs)
  }
  throw new Error(`${uri} was in no timeline within ${waitMsMax} ms`)
}

/** @returns how many they wrote */
async function background(): Promise<number> {
  let count = 0
  const began = performance.now()
  while (!stopped.signal.aborted) {
    await write(names[count % people] ?? 'p0')
    count += 1
    await Bun.sleep(Math.max(0, (count / pace) * 1000 - (performance.now() - began)))
  }
  return count
}

function ok({ status, body }: Answer): Answer['body'] {
  if (status === 200) return body
  throw new Error(`it answered ${status} ${JSON.stringify(body)}`)
}
