import { encode } from '../../src/atproto/cbor.ts'
import { encodeCar } from '../../src/atproto/car.ts'
import { type CidBytes, cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { signCommit } from '../../src/atproto/commit.ts'
import { checkDataObject } from '../../src/atproto/data.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { type Did, parseTid } from '../../src/atproto/syntax.ts'

export interface Block {
  readonly cid: CidBytes
  readonly bytes: Uint8Array
}

/** A repo as another service would export it, by a key that nobody knows here. */
export class ForeignRepo {
  readonly did: Did
  readonly #records = new Map<string, Block>()

  constructor(did: Did, records: Readonly<Record<string, unknown>> = {}) {
    this.did = did
    for (const [path, record] of Object.entries(records)) this.put(path, record)
  }

  /** @returns the CID of the record */
  put(path: string, record: unknown): string {
    checkDataObject(record)
    return this.putBytes(path, encode(record))
  }

  putBytes(path: string, bytes: Uint8Array): string {
    const cid = cidForCbor(bytes)
    this.#records.set(path, { cid, bytes })
    return cidToString(cid)
  }

  /** Of the records, by their keys alone. */
  get cids(): Map<string, string> {
    return new Map([...this.#records].map(([path, { cid }]) => [rkeyOf(path), cidToString(cid)]))
  }

  get tree(): Mst {
    const paths = [...this.#records].toSorted(([a], [b]) => (a < b ? -1 : 1))
    return Mst.fromSorted(paths.map(([path, { cid }]) => [path, cid] as const))
  }

  commit(over: Partial<{ did: Did; data: CidBytes }> = {}): Block {
    const facts = { did: this.did, data: this.tree.rootCid(), rev: parseTid('3kabcdefghi22') }
    return signCommit({ ...facts, ...over }, SigningKey.generate())
  }

  /** All blocks, the commit first. */
  blocks(commit = this.commit()): Block[] {
    const nodes = [...this.tree.nodes()].map(({ cid, bytes }) => ({ cid, bytes }))
    const contents = new Map([...this.#records.values()].map((one) => [cidToString(one.cid), one]))
    return [commit, ...nodes, ...contents.values()]
  }

  car(): Uint8Array {
    const blocks = this.blocks()
    const [commit] = blocks
    if (commit === undefined) throw new Error('a repo has a commit')
    return encodeCar(commit.cid, blocks)
  }
}

function rkeyOf(path: string): string {
  return path.slice(path.indexOf('/') + 1)
}
