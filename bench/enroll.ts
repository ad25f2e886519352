import { copyFileSync, linkSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Did } from '../src/atproto/syntax.ts'
import { folder } from '../src/lib/embed.macro.ts' with { type: 'macro' }
import { actorFolder } from '../src/store/actor-folder.ts'
import { migrateSqlite } from '../src/store/migrate.ts'
import { openSqlite } from '../src/store/sqlite.ts'
import { seed } from '../test/kit/seed.ts'
import { isFields } from '../test/kit/xrpc.ts'
import { AuthorizationServer } from '../test/remote/authorization-server.ts'
import { Directory } from '../test/remote/directory.ts'
import { benchDid } from './kit/people.ts'
import { numberOption, option, ownShare, percentiles, print } from './kit/report.ts'
import { Service } from './kit/service.ts'

/**
 * Enrollments a second through the whole OAuth flow against an authorization server of the bench's
 * own, and what many enrolled people cost a service: start, memory, `enrollment.status`.
 * Usage: bun bench/enroll.ts [--seconds 5] [--people 100000] [--binary dist/stratos]
 */
const seconds = numberOption('seconds', { fallback: 5, max: 60 })
const people = numberOption('people', { fallback: 100_000, max: 1_000_000 })
const build = { binary: option('binary') }

const files = ['signing_key', 'stratos.sqlite']
const copyEnrollment = `insert into enrollment
  (did, "pdsEndpoint", "signingKey", rkey, "enrolledAt", active, scope, "recordDue")
  select $1, "pdsEndpoint", "signingKey", rkey, "enrolledAt", active, scope, 0
    from enrollment where did = $2`
const insertBoundary = 'insert into enrollment_boundary (did, boundary) values ($1, $2)'
const insertSession = 'insert into oauth_session (did, value, "updatedAt") values ($1, $2, $3)'

await measureEnrollment()
await measurePopulation()

async function measureEnrollment(): Promise<void> {
  await using directory = new Directory()
  await using server = new AuthorizationServer()
  server.grantedScope = 'atproto repo:zone.stratos.actor.enrollment repo:zone.stratos.feed.post'
  let written = 0
  server.xrpc = async (request) => {
    const { collection, rkey } = Object(await request.json())
    written += 1
    return Response.json({ uri: `at://x/${collection}/${rkey}`, cid: 'bafyreibench' })
  }
  await using service = await Service.prepare()
  const env = {
    STRATOS_PLC_URL: directory.url,
    STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
    STRATOS_ENROLLMENT_MODE: 'open',
    // One address may begin 60 sign-ins a minute: each of these comes from its own.
    STRATOS_TRUSTED_PROXIES: '127.0.0.0/8,::1/128',
  }
  await service.start(env, build)
  let count = 0
  const enroll = async () => {
    const did = directory.add({ pds: server.url })
    await enrollOne({ service, server, did, address: addressOf(count++) })
    return did
  }
  for (let index = 0; index < 20; index++) await enroll()
  for (const clients of [1, 8]) {
    const times: number[] = []
    const dids: Did[] = []
    const own = process.cpuUsage()
    const start = performance.now()
    const end = start + seconds * 1000
    await Promise.all(
      Array.from({ length: clients }, async () => {
        while (performance.now() < end) {
          const before = performance.now()
          dids.push(await enroll())
          times.push(performance.now() - before)
        }
      }),
    )
    const took = performance.now() - start
    for (const did of dids) await expectEnrolled(service, did)
    print(
      `enroll, ${clients} at once: ${((dids.length / took) * 1000).toFixed(1)}/s   ` +
        `${percentiles(times)}   ${ownShare(own, took)} (with both other servers)`,
    )
  }
  print(`all ${count} are enrolled, ${written} PDS records were delivered so far`)
}

async function enrollOne(visit: {
  readonly service: Service
  readonly server: AuthorizationServer
  readonly did: Did
  readonly address: string
}): Promise<void> {
  const { service, server, did, address } = visit
  const base = `http://127.0.0.1:${service.port}/oauth`
  const headers = { 'x-forwarded-for': address }
  const started = await fetch(`${base}/authorize?handle=${did}`, { headers, redirect: 'manual' })
  const state = server.stateOf(started.headers.get('location') ?? '')
  const [cookie = ''] = (started.headers.get('set-cookie') ?? '').split(';')
  const back = server.approve(state, did)
  const answer = await fetch(`${base}/callback?${back.toString()}`, {
    headers: { ...headers, cookie },
  })
  const body: unknown = await answer.json()
  if (answer.status === 200 && isFields(body) && body['did'] === did) return
  throw new Error(`${answer.status} ${JSON.stringify(body)}`)
}

async function measurePopulation(): Promise<void> {
  const empty = await figures(0)
  const full = await figures(people)
  print(
    `${people} people: start ${full.startMs.toFixed(0)} ms (none: ${empty.startMs.toFixed(0)} ms), ` +
      `resident ${full.residentMb.toFixed(0)} MB (none: ${empty.residentMb.toFixed(0)} MB, ` +
      `difference ${(full.residentMb - empty.residentMb).toFixed(0)} MB)`,
  )
}

/** Start of a service with so many people, `status`, and memory after that load. */
async function figures(count: number) {
  await using service = await Service.prepare()
  const { did: serviceDid, dataDir } = service
  const first = { did: benchDid(0), boundaries: [`${serviceDid}/a`] }
  await seed(dataDir, serviceDid, [first])
  if (count > 0) await populate(dataDir, serviceDid, count)
  const env = { STRATOS_ALLOWED_DOMAINS: 'a,b', STRATOS_DEV_MODE: 'true' }
  const startMs = await service.start(env, build)
  const of = Math.max(1, count)
  await status(service, { clients: 8, of, as: 'nobody', quiet: true })
  for (const as of ['nobody', 'the person'] as const) {
    for (const clients of [1, 16]) await status(service, { clients, of, as, quiet: false })
  }
  const residentMb = service.residentMb()
  await service.stop()
  return { startMs, residentMb }
}

/** Rows as enrollment makes them. Folders are real, their files are links to those of the first. */
async function populate(dataDir: string, serviceDid: string, count: number): Promise<void> {
  const path = join(dataDir, 'service.sqlite')
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 8192, exclusive: true })
  await migrateSqlite(sqlite, folder('migrations/service/sqlite'))
  let model = actorFolder(dataDir, benchDid(0))
  const boundaries = ['a', 'b'].map((name) => `${serviceDid}/${name}`)
  for (let start = 1; start < count; start += 1_000) {
    const dids = Array.from({ length: Math.min(1_000, count - start) }, (_, index) =>
      benchDid(start + index),
    )
    await sqlite.run(
      dids.flatMap((did) => [
        { sql: copyEnrollment, args: [did, benchDid(0)] },
        ...boundaries.map((boundary) => ({ sql: insertBoundary, args: [did, boundary] })),
        { sql: insertSession, args: [did, '{}'.padEnd(3_000), new Date().toISOString()] },
      ]),
    )
    for (const did of dids) {
      const own = actorFolder(dataDir, did)
      mkdirSync(dirname(own), { recursive: true })
      mkdirSync(own)
      // A file has no more than some ten thousand links: the first of each lot is a copy.
      const put = did === dids[0] ? copyFileSync : linkSync
      for (const name of files) put(join(model, name), join(own, name))
      model = own
    }
  }
  await sqlite.close()
}

async function status(
  service: Service,
  load: {
    readonly clients: number
    readonly of: number
    readonly as: 'nobody' | 'the person'
    readonly quiet: boolean
  },
): Promise<void> {
  const { clients, of, as, quiet } = load
  const times: number[] = []
  const own = process.cpuUsage()
  const start = performance.now()
  const end = start + (quiet ? Math.min(1, seconds) : seconds) * 1000
  await Promise.all(
    Array.from({ length: clients }, async () => {
      while (performance.now() < end) {
        const did = benchDid(Math.floor(Math.random() * of))
        const before = performance.now()
        await expectEnrolled(service, did, as === 'nobody' ? undefined : did)
        times.push(performance.now() - before)
      }
    }),
  )
  if (quiet) return
  const took = performance.now() - start
  print(
    `status of ${of} people, ${clients} at once, asked by ${as}: ` +
      `${((times.length / took) * 1000).toFixed(0)}/s   ${percentiles(times)}   ` +
      ownShare(own, took),
  )
}

async function expectEnrolled(service: Service, did: Did, as?: Did): Promise<void> {
  const headers = as === undefined ? {} : { authorization: `Bearer ${as}` }
  const url = `${service.url}/xrpc/zone.stratos.enrollment.status?did=${did}`
  const body: unknown = await (await fetch(url, { headers })).json()
  const shown = isFields(body)
    ? [body['did'], body['enrolled'], body['attestation'] !== undefined]
    : []
  if (Bun.deepEquals(shown, [did, true, as !== undefined])) return
  throw new Error(`status of ${did} as ${as} is ${JSON.stringify(body)}`)
}

/** An address of its own for each, of a network that nobody uses. */
function addressOf(index: number): string {
  return `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`
}
