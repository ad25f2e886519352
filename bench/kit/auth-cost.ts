import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ServiceAuth } from '../../src/api/service-auth.ts'
import { fastestK256, nobleK256 } from '../../src/atproto/k256.ts'
import { parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'
import { Identities } from '../../src/remote/identity.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { UsedTokenStore } from '../../src/store/used-token.ts'
import { benchDid, Callers } from './people.ts'
import { numberOption, print } from './report.ts'

/**
 * What it takes to know who calls, in this process and without HTTP: the bench runs this from source
 * and built like the binary. Each figure is the median over rounds of the mean of one round.
 * Usage: bun bench/kit/auth-cost.ts [--count 500] [--rounds 9]
 */
const count = numberOption('count', { fallback: 500, max: 5000 })
const rounds = numberOption('rounds', { fallback: 9, max: 100 })
const aud = parseDid('did:web:bench.example')
const nsid = parseNsid('zone.stratos.repo.createRecord')
const door = { nsid, tokens: 'any', address: '192.0.2.1' } as const
const fastest = fastestK256().verifier

await using callers = new Callers()
const folder = mkdtempSync(join(tmpdir(), 'stratos-bench-'))
const sql = openSqlite(join(folder, 'used.sqlite'), {
  synchronous: 'normal',
  cacheKib: 256,
  exclusive: true,
})
try {
  const [k256, p256] = [benchDid(0), benchDid(1)]
  callers.add(k256, 'ES256K')
  callers.add(p256, 'ES256')
  const cases = [
    { name: 'service auth, seen before', did: k256, verifier: fastest, isFresh: false },
    { name: `K-256 at first sight, ${fastest.name}`, did: k256, verifier: fastest, isFresh: true },
    {
      name: `K-256 at first sight, ${nobleK256.name}`,
      did: k256,
      verifier: nobleK256,
      isFresh: true,
    },
    { name: 'P-256 at first sight, node:crypto', did: p256, verifier: fastest, isFresh: true },
    // Sessions and DPoP proofs have their place here.
  ]
  for (const one of cases) await measure(one)
} finally {
  await sql.close()
  rmSync(folder, { recursive: true })
}

async function measure(one: {
  readonly name: string
  readonly did: ReturnType<typeof benchDid>
  readonly verifier: typeof fastest
  readonly isFresh: boolean
}): Promise<void> {
  const { name, did, verifier, isFresh } = one
  const auth = serviceAuth(verifier)
  const mint = () => callers.token(did, { aud, lxm: nsid })
  await auth.verify(mint(), door)
  const seen = mint()
  const means: number[] = []
  for (let round = 0; round <= rounds; round++) {
    const tokens = Array.from({ length: count }, () => (isFresh ? mint() : seen))
    if (!isFresh) await auth.verify(seen, door)
    const start = performance.now()
    for (const token of tokens) {
      if ((await auth.verify(token, door)) !== did) throw new Error(`${name}: somebody else`)
    }
    // The first one warms up.
    if (round > 0) means.push(((performance.now() - start) / count) * 1000)
  }
  const [median = 0] = means.toSorted((a, b) => a - b).slice(Math.floor(means.length / 2))
  const [least, most] = [Math.min(...means), Math.max(...means)]
  const spread = `[${least.toFixed(1)} to ${most.toFixed(1)}]`
  print(`${name.padEnd(40)} ${median.toFixed(1).padStart(7)} us a call ${spread}`)
}

function serviceAuth(k256: typeof fastest): ServiceAuth {
  return new ServiceAuth({
    serviceDid: aud,
    fragment: 'atproto_pns',
    identities: new Identities({
      plcUrl: callers.directoryUrl,
      fetch: createGuardedFetch({
        allowPrivateNetwork: true,
        timeoutMs: 5000,
        responseBytesMax: 100_000,
      }),
      now: Date.now,
    }),
    used: new UsedTokenStore(sql),
    k256,
    serviceAuthSingleUse: false,
    isKnown: async () => true,
    now: Date.now,
  })
}
