import { cborToLexRecord, readCarWithRoot, verifyRepo } from '@atproto/repo'
import { postCollection } from '../kit/post.ts'
import { textOf } from '../kit/xrpc.ts'
import type { ActorFile } from './actor-file.ts'
import type { Found } from './ledger.ts'
import { requestOfText } from './load.ts'

/**
 * Records of an export by their keys.
 * @throws unless it verifies against the signing key and holds just what the rows say
 */
export async function recordsOfExport(
  car: Uint8Array,
  { did, head, records }: ActorFile,
  signingKey: string,
): Promise<Map<string, Found>> {
  const { root, blocks } = await readCarWithRoot(car)
  const { commit, creates } = await verifyRepo(blocks, root, did, signingKey)
  const found = new Map<string, Found>()
  for (const { collection, rkey, cid } of creates) {
    const bytes = blocks.get(cid)
    if (bytes === undefined) throw new Error(`the export of ${did} lacks ${rkey}`)
    if (collection !== postCollection) throw new Error(`${collection} was never written`)
    found.set(rkey, {
      cid: cid.toString(),
      number: requestOfText(textOf(cborToLexRecord(bytes), 'text')),
    })
  }
  const rows = records.map(({ rkey, cid }) => `${rkey} ${cid}`)
  const exported = [...found].map(([rkey, { cid }]) => `${rkey} ${cid}`).toSorted()
  if (commit.rev !== head.rev || !Bun.deepEquals(rows, exported)) {
    throw new Error(`the export of ${did}, of ${commit.rev}, is not what the rows say`)
  }
  return found
}
