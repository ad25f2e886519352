import { cborToLexRecord, readCarWithRoot, verifyRepo } from '@atproto/repo'
import type { Did } from '../../src/atproto/syntax.ts'
import { postCollection } from '../kit/post.ts'
import { textOf } from '../kit/xrpc.ts'
import type { ActorFile } from './actor-file.ts'
import type { Found } from './ledger.ts'
import { requestOfText } from './load.ts'

/**
 * What an export holds, the records by their keys.
 * @throws unless it verifies against the signing key
 */
export async function recordsOfExport(car: Uint8Array, did: Did, signingKey: string) {
  const { root, blocks } = await readCarWithRoot(car)
  const { commit, creates } = await verifyRepo(blocks, root, did, signingKey)
  const records = new Map<string, Found>()
  for (const { collection, rkey, cid } of creates) {
    const bytes = blocks.get(cid)
    if (bytes === undefined) throw new Error(`the export of ${did} lacks ${rkey}`)
    if (collection !== postCollection) throw new Error(`${collection} was never written`)
    records.set(rkey, {
      cid: cid.toString(),
      number: requestOfText(textOf(cborToLexRecord(bytes), 'text')),
    })
  }
  return { rev: commit.rev, records }
}

/** Whether an export is of what the rows say. */
export function isOfRows(
  { rev, records }: Awaited<ReturnType<typeof recordsOfExport>>,
  file: ActorFile,
): boolean {
  const rows = file.records.map(({ rkey, cid }) => `${rkey} ${cid}`)
  const exported = [...records].map(([rkey, { cid }]) => `${rkey} ${cid}`).toSorted()
  return rev === file.head.rev && Bun.deepEquals(rows, exported)
}
