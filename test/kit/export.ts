import { MemoryBlockstore, Repo, readCarStream, verifyCommitSig } from '@atproto/repo'

/** What somebody else's reader finds in an export, of which content may be missing. */
export interface Exported {
  /** Of every record in the signed tree, by its path. */
  readonly cids: ReadonlyMap<string, string>
  /** Paths of the records whose content is there, in the order of the tree. */
  readonly withContent: readonly string[]
  /** How many blocks the CAR has beside commit and tree. */
  readonly recordBlocks: number
}

/** @throws when a block is not what its CID says, or the tree is not what the actor's key signed */
export async function readExport(car: Uint8Array, signingKey: string): Promise<Exported> {
  const { roots, blocks } = await readCarStream([car])
  const storage = new MemoryBlockstore()
  const found: string[] = []
  for await (const { cid, bytes } of blocks) {
    found.push(cid.toString())
    await storage.putBlock(cid, bytes)
  }
  const [root] = roots
  if (root === undefined) throw new Error('the export has no root')
  const repo = await Repo.load(storage, root)
  if (!(await verifyCommitSig(repo.commit, signingKey))) throw new Error('a wrong signature')
  const leaves = await repo.data.list()
  const cids = new Map(leaves.map(({ key, value }) => [key, value.toString()]))
  const records = new Set(cids.values())
  return {
    cids,
    withContent: [...cids].filter(([, cid]) => found.includes(cid)).map(([path]) => path),
    recordBlocks: found.filter((cid) => records.has(cid)).length,
  }
}
