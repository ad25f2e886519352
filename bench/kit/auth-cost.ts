import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AccessTokens } from '../../src/api/access-token.ts'
import { Dpop } from '../../src/api/dpop.ts'
import { DpopNonces } from '../../src/api/dpop-nonce.ts'
import { DpopProofs } from '../../src/api/dpop-proof.ts'
import { ServiceAuth } from '../../src/api/service-auth.ts'
import { SessionTokens } from '../../src/api/session-token.ts'
import { fastestK256, nobleK256 } from '../../src/atproto/k256.ts'
import { parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'
import { Identities } from '../../src/remote/identity.ts'
import { IssuerKeys } from '../../src/remote/issuer-keys.ts'
import { storesOver } from '../../src/serve/stores.ts'
import { SessionSecrets } from '../../src/service/session-secrets.ts'
import { SessionSecretStore } from '../../src/store/session-secret.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { AppKey, dpopProof, pdsToken } from '../../test/kit/dpop.ts'
import { seed } from '../../test/kit/seed.ts'
import { benchDid, Callers } from './people.ts'
import { numberOption, print } from './report.ts'

/**
 * What it takes to know who calls, in this process and without HTTP: the bench runs this from source
 * and built like the binary. Each figure is the median over rounds of the mean of one round.
 * Usage: bun bench/kit/auth-cost.ts [--count 500] [--rounds 9]
 */
const count = numberOption('count', { fallback: 500, max: 5000 })
const rounds = numberOption('rounds', { fallback: 9, max: 100 })
const serviceDid = parseDid('did:web:bench.example')
const origin = 'https://bench.example'
const nsid = parseNsid('zone.stratos.repo.createRecord')
const address = '192.0.2.1'
const door = { nsid, tokens: 'any', address } as const
const now = Date.now
const [k256, p256] = [benchDid(0), benchDid(1)]
const fastest = fastestK256().verifier

/** One way to call: what comes with a request, and whose the service finds it to be. */
interface Way<Credential> {
  readonly name: string
  readonly did: typeof k256
  readonly make: () => Promise<Credential>
  readonly check: (credential: Credential) => Promise<string>
}

await using callers = new Callers()
callers.add(k256, 'ES256K')
callers.add(p256, 'ES256')
const folder = mkdtempSync(join(tmpdir(), 'stratos-bench-'))
await seed(folder, serviceDid, [{ did: k256, boundaries: [] }])
const sql = openSqlite(join(folder, 'service.sqlite'), {
  synchronous: 'normal',
  cacheKib: 1024,
  exclusive: true,
})
const stores = storesOver(sql)
const fetch = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 5000,
  responseBytesMax: 100_000,
})
const identities = new Identities({ plcUrl: callers.directoryUrl, fetch, now })
try {
  await measureServiceAuth()
  await measureSession()
  await measureDpop()
} finally {
  await sql.close()
  rmSync(folder, { recursive: true })
}

async function measureServiceAuth(): Promise<void> {
  const seen = callers.token(k256, { aud: serviceDid, lxm: nsid })
  const ways = [
    { name: 'service auth, seen before', did: k256, verifier: fastest, token: seen },
    { name: `K-256 at first sight, ${fastest.name}`, did: k256, verifier: fastest },
    { name: `K-256 at first sight, ${nobleK256.name}`, did: k256, verifier: nobleK256 },
    { name: 'P-256 at first sight, node:crypto', did: p256, verifier: fastest },
  ]
  for (const { name, did, verifier, token } of ways) {
    const auth = serviceAuth(verifier)
    const make = async () => token ?? callers.token(did, { aud: serviceDid, lxm: nsid })
    await auth.verify(await make(), door)
    await measure({ name, did, make, check: (credential) => auth.verify(credential, door) })
  }
}

async function measureSession(): Promise<void> {
  const log = createLog('error', (line) => process.stderr.write(`${line}\n`))
  const secrets = await SessionSecrets.open({ store: new SessionSecretStore(sql), now, log })
  const tokens = new SessionTokens({ serviceDid, secrets, sessions: stores.tokenSessions, now })
  const { token } = await tokens.issue(k256)
  await measure({
    name: 'session',
    did: k256,
    make: async () => token,
    check: async (credential) => (await tokens.verify(credential)).did,
  })
}

/** By a bound key, as it has to be wherever the PDS publishes none. Each proof is a new one. */
async function measureDpop(): Promise<void> {
  const nonces = new DpopNonces({ secret: Buffer.alloc(32, 1), now })
  const origins = new Set([origin])
  const proofs = new DpopProofs({ origins, nonces, requireNonce: true, now })
  const issuerKeys = new IssuerKeys({ fetch, now })
  const tokens = new AccessTokens({ serviceDid, identities, issuerKeys, now })
  const enrollments = { member: () => Promise.reject(new Error('the key is bound')) }
  const dpop = new Dpop({ proofs, tokens, enrollments, boundKeys: stores.boundKeys, now })
  const key = await AppKey.create()
  await stores.boundKeys.bind(k256, key.thumbprint, now())
  const token = await pdsToken(k256, key)
  const url = `${origin}/xrpc/${nsid}`
  const about = { htm: 'POST', htu: url, token }
  await measure({
    name: 'DPoP by a bound key',
    did: k256,
    make: async () => {
      const proof = await dpopProof(key, { ...about, nonce: proofs.nonce })
      return new Request(url, { method: 'POST', headers: { dpop: proof } })
    },
    check: async (request) => (await dpop.identify(token, { request, address })).did,
  })
}

async function measure<Credential>({ name, did, make, check }: Way<Credential>): Promise<void> {
  const means: number[] = []
  for (let round = 0; round <= rounds; round++) {
    // Made before, for making one takes longer than checking it.
    const credentials: Credential[] = []
    for (let index = 0; index < count; index++) credentials.push(await make())
    const start = performance.now()
    for (const credential of credentials) {
      if ((await check(credential)) !== did) throw new Error(`${name}: somebody else`)
    }
    // The first one warms up.
    if (round > 0) means.push(((performance.now() - start) / count) * 1000)
  }
  const [median = 0] = means.toSorted((a, b) => a - b).slice(Math.floor(means.length / 2))
  const [least, most] = [Math.min(...means), Math.max(...means)]
  const spread = `[${least.toFixed(1)} to ${most.toFixed(1)}]`
  print(`${name.padEnd(40)} ${median.toFixed(1).padStart(7)} us a call ${spread}`)
}

function serviceAuth(verifier: typeof fastest): ServiceAuth {
  return new ServiceAuth({
    serviceDid,
    fragment: 'atproto_pns',
    identities,
    used: stores.used,
    k256: verifier,
    serviceAuthSingleUse: false,
    isKnown: async () => true,
    now,
  })
}
