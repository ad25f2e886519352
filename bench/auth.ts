import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Did } from '../src/atproto/syntax.ts'
import { seed } from '../test/kit/seed.ts'
import { drive } from './kit/generator.ts'
import { benchDid, Callers } from './kit/people.ts'
import type { PlannedClient, Step } from './kit/plan.ts'
import { numberOption, option, print } from './kit/report.ts'
import { ownRoot, Service } from './kit/service.ts'

/**
 * What it costs to know who calls. First the check alone, by the call, in a process of its own;
 * with `--binary` this is built as the binary is. Then over HTTP: the CPU that the service uses for
 * the same cheap answer with a credential, beyond what it uses without one.
 * Usage: bun bench/auth.ts [--calls 500] [--requests 5000] [--rounds 3] [--binary dist/stratos]
 */
const calls = numberOption('calls', { fallback: 500, max: 5000 })
const requests = numberOption('requests', { fallback: 5000, max: 100_000 })
const rounds = numberOption('rounds', { fallback: 3, max: 100 })
const binary = option('binary')
const clients = 8
const nsid = 'zone.stratos.server.listDomains'

print(binary === undefined ? 'from source' : binary)
await measureCalls()
await measureRequests()
print('every answer was as expected')
process.exit()

async function measureCalls(): Promise<void> {
  const script = fileURLToPath(new URL('kit/auth-cost.ts', import.meta.url))
  const options = ['--count', String(calls), '--rounds', String(Math.max(3, rounds))]
  const folder = await mkdtemp(join(tmpdir(), 'stratos-bench-'))
  try {
    const built = join(folder, 'auth-cost')
    if (binary !== undefined) {
      // As in the script `build` of package.json.
      const how = ['--compile', '--minify', '--bytecode', '--format=esm', '--outfile', built]
      await run([process.execPath, 'build', ...how, script], { stdout: 'ignore' })
    }
    const command = binary === undefined ? [process.execPath, script] : [built]
    await run([...command, ...options], { stdout: 'inherit', env: { TMPDIR: folder } })
  } finally {
    await rm(folder, { recursive: true })
  }
}

async function run(
  command: string[],
  { stdout, env = {} }: { stdout: 'ignore' | 'inherit'; env?: Record<string, string> },
): Promise<void> {
  const child = Bun.spawn(command, {
    cwd: ownRoot,
    env: { ...process.env, ...env },
    stdio: ['ignore', stdout, 'inherit'],
  })
  if ((await child.exited) !== 0) throw new Error(`${command[0]} ended with ${child.exitCode}`)
}

async function measureRequests(): Promise<void> {
  await using service = await Service.prepare()
  await using callers = new Callers()
  const [ofK256, ofP256] = [benchDid(0), benchDid(1)]
  callers.add(ofK256, 'ES256K')
  callers.add(ofP256, 'ES256')
  const boundaries = [`${service.did}/a`]
  await seed(
    service.dataDir,
    service.did,
    [ofK256, ofP256].map((did) => ({ did, boundaries })),
  )
  await service.start({ ...callers.env, STRATOS_ALLOWED_DOMAINS: 'a' }, { binary })
  const token = (did: Did) => callers.token(did, { aud: service.did, lxm: nsid })
  const seen = token(ofK256)
  // Each gives the credential of one request.
  const loads: Record<string, (() => string) | undefined> = {
    'without a credential': undefined,
    'service auth, seen before': () => seen,
    'service auth of K-256 at first sight': () => token(ofK256),
    'service auth of P-256 at first sight': () => token(ofP256),
  }
  const costs = new Map<string, number[]>()
  for (let round = 0; round <= rounds; round++) {
    for (const [name, credential] of Object.entries(loads)) {
      const cost = await cpuOfRequest(service, credential)
      // The first round warms up.
      if (round > 0) costs.set(name, [...(costs.get(name) ?? []), cost])
    }
  }
  const plain = median(costs.get('without a credential') ?? [])
  for (const [name, all] of costs) {
    const cost = median(all)
    const beyond = cost === plain ? '' : `, ${(cost - plain).toFixed(1)} beyond none`
    print(`${name.padEnd(40)} ${cost.toFixed(1).padStart(7)} us of CPU a request${beyond}`)
  }
  await service.stop()
}

/** Microseconds of the service's CPU. */
async function cpuOfRequest(
  { port, pid, did }: Service,
  credential: (() => string) | undefined,
): Promise<number> {
  const headers: Record<string, string> =
    credential === undefined ? {} : { Authorization: 'Bearer <word>' }
  const text = JSON.stringify({ domains: [`${did}/a`] })
  const expected = { kind: 'text', text } as const
  const planned: PlannedClient[] = Array.from({ length: clients }, () => ({
    // Made before, for making one takes longer than checking it.
    steps: Array.from({ length: Math.ceil(requests / clients) }, (): Step =>
      credential === undefined ? [0] : [0, credential()],
    ),
    repeats: false,
  }))
  const driven = await drive(
    {
      port,
      requests: [{ verb: 'GET', path: `/xrpc/${nsid}`, headers, body: null, expected }],
      clients: planned,
      warmUpSeconds: 0,
      seconds: null,
      perSecond: null,
    },
    pid,
  )
  return (driven.cpuSeconds / driven.times.length) * 1_000_000
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
