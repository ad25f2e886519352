import { createGuardedFetch } from '../../src/remote/fetch.ts'
import type { Certificate } from '../kit/certificate.ts'
import { failureOf } from '../kit/wait.ts'

/**
 * What the guard does with public addresses: run in a network of its own, where two of them belong
 * to this process. Writes what it saw as JSON.
 * Usage: bun test/remote/public-network.ts <certificates of pds.test and second.test, as JSON>
 */
const [pds, second] = ['93.184.215.14', '93.184.215.15'] as const
const certificates: Record<'pds' | 'second', Certificate> = JSON.parse(process.argv[2] ?? '{}')

for (const line of [
  'link set lo up',
  `addr add ${pds}/32 dev lo`,
  `addr add ${second}/32 dev lo`,
]) {
  const { exitCode, stderr } = Bun.spawnSync(['ip', ...line.split(' ')])
  if (exitCode !== 0) throw new Error(stderr.toString())
}

/** Requests, by the server that got them. */
const seen: Record<'pds' | 'second' | 'loopback', object[]> = { pds: [], second: [], loopback: [] }
serve(pds, 'pds', certificates.pds)
serve(second, 'second', certificates.second)
serve('127.0.0.1', 'loopback', certificates.pds)

let lookUps: string[] = []
const results = {
  plain: await visit('https://pds.test/', { 'pds.test': [[pds]] }),
  rebound: await visit('https://pds.test/', { 'pds.test': [[pds], ['127.0.0.1']] }),
  dotted: await visit('https://pds.test./', { 'pds.test.': [[pds]] }),
  otherName: await visit('https://other.test/', { 'other.test': [[pds]] }),
  literal: await visit(`https://${pds}/`, {}),
  inward: await visit(to('https://inner.test/'), {
    'pds.test': [[pds]],
    'inner.test': [['127.0.0.1']],
  }),
  loopback: await visit(to('https://127.0.0.1/'), { 'pds.test': [[pds]] }),
  back: await visit(to('https://pds.test/'), { 'pds.test': [[pds], ['127.0.0.1']] }),
  onward: await visit(to('https://second.test/'), {
    'pds.test': [[pds]],
    'second.test': [[second]],
  }),
  nextAddress: await visit('https://pds.test/', { 'pds.test': [['93.184.215.16', pds]] }),
}
process.stdout.write(JSON.stringify({ results, seen }))
process.exit(0)

/** @param names what each name leads to, look-up by look-up */
async function visit(url: string, names: Readonly<Record<string, readonly string[][]>>) {
  lookUps = []
  const asked = new Map<string, number>()
  const get = createGuardedFetch({
    allowPrivateNetwork: false,
    timeoutMs: 5000,
    responseBytesMax: 1000,
    lookup: async (name) => {
      lookUps.push(name)
      const count = asked.get(name) ?? 0
      asked.set(name, count + 1)
      return names[name]?.[count] ?? []
    },
  })
  let status = 0
  const headers = { authorization: 'DPoP a', dpop: 'b', cookie: 'c', accept: 'text/d' }
  const ask = async () => {
    const response = await get(url, { headers })
    status = response.status
    await response.text()
  }
  const error = await failureOf(ask())
  return { status, error: error instanceof Error ? `${error.name}: ${error.message}` : '', lookUps }
}

function to(url: string): string {
  return `https://pds.test/to?${new URLSearchParams({ to: url }).toString()}`
}

function serve(hostname: string, name: keyof typeof seen, tls: Certificate): void {
  Bun.serve({
    hostname,
    port: 443,
    tls,
    fetch: (request) => {
      const { pathname, searchParams } = new URL(request.url)
      const { headers } = request
      const credentials = ['authorization', 'dpop', 'cookie'].filter((one) => headers.has(one))
      seen[name].push({ host: headers.get('host'), credentials })
      if (pathname !== '/to') return new Response(name)
      const location = searchParams.get('to') ?? ''
      return new Response(null, { status: 302, headers: { location } })
    },
  })
}
