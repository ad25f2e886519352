import { verifyRepoCar } from '@atproto/repo'
import { indexCar } from '../../src/atproto/car-index.ts'
import { verifyCommit } from '../../src/atproto/commit.ts'
import { walkTree } from '../../src/atproto/mst-walk.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'

/** Where repos are exported, and by which credentials. */
export interface Exporter {
  readonly url: string
  readonly method: string
  readonly headersOf: (did: Did) => Readonly<Record<string, string>>
  readonly signingKeyOf: (did: Did) => Promise<string>
}

/** So many are exported at once: a service sends only a few at a time. */
const atOnce = 2
const recordsMax = 1_000_000
const limits = {
  carBytesMax: 512 * 1024 * 1024,
  blockBytesMax: 2 * 1024 * 1024,
  blocksMax: 2 * recordsMax,
}

/**
 * A fast wrong answer fails: every repo must have exactly the records that were acknowledged, in
 * the tree that its key signed. A sample, spread over all, is read by `@atproto/repo` as well.
 * @returns what was found, in words
 */
export async function verifyRepos(
  exporter: Exporter,
  expected: ReadonlyMap<Did, number>,
  sample = 8,
): Promise<string> {
  const repos = [...expected]
  const every = Math.max(1, Math.ceil(repos.length / sample))
  let next = 0
  let sampled = 0
  const work = async () => {
    for (let at = next++; at < repos.length; at = next++) {
      const [did, count] = repos[at] ?? []
      if (did === undefined) return
      const car = await exportOf(exporter, did)
      const signingKey = await exporter.signingKeyOf(did)
      expectCount(did, { found: countIn(car, signingKey), expected: count })
      if (at % every !== 0) continue
      const theirs = await verifyRepoCar(car, did, signingKey)
      expectCount(did, { found: theirs.creates.length, expected: count })
      sampled += 1
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  const records = repos.reduce((sum, [, count]) => sum + count, 0)
  return `verified ${repos.length} repos with all of ${records} records, ${sampled} of them by @atproto/repo`
}

async function exportOf({ url, method, headersOf }: Exporter, did: Did): Promise<Uint8Array> {
  const response = await fetch(`${url}/xrpc/${method}?did=${did}`, { headers: headersOf(did) })
  if (!response.ok) throw new Error(`${method}: ${response.status} ${await response.text()}`)
  return await response.bytes()
}

/** By our own reader, which compares every hash. */
function countIn(car: Uint8Array, signingKey: string): number {
  const index = runSteps(indexCar(new MemorySource(car), limits))
  const { data } = verifyCommit(index.rootBlock(), signingKey)
  return [...walkTree(data, (cid) => index.block(cid), { recordsMax })].length
}

function expectCount(
  did: Did,
  counts: { readonly found: number; readonly expected: number | undefined },
): void {
  if (counts.found === counts.expected) return
  throw new Error(`${did} has ${counts.found} records, ${counts.expected} were acknowledged`)
}
