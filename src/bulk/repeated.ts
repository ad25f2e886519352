import { type Cid, type CidBytes, cidByteLength, cidToString } from '../atproto/cid.ts'

/** Records of one content share a block, which comes once. */
export class Repeated {
  /** Parts of hashes that several have, which are hardly ever those of several contents. */
  readonly #several = new Set<number>()
  readonly #seen = new Set<Cid>()

  /** @param cids of all records, one after the other */
  constructor(cids: Uint8Array) {
    const parts = new Float64Array(cids.length / cidByteLength)
    for (let index = 0; index < parts.length; index++) {
      parts[index] = partAt(cids, index * cidByteLength)
    }
    parts.sort()
    for (let index = 1; index < parts.length; index++) {
      const part = parts[index]
      if (part !== undefined && part === parts[index - 1]) this.#several.add(part)
    }
  }

  isFirst(cid: CidBytes): boolean {
    if (this.#several.size === 0 || !this.#several.has(partAt(cid, 0))) return true
    const name = cidToString(cid)
    const isFirst = !this.#seen.has(name)
    this.#seen.add(name)
    return isFirst
  }
}

/** Six bytes of the hash, as many as a number holds. */
function partAt(bytes: Uint8Array, cidAt: number): number {
  let part = 0
  for (let at = cidAt + partStart; at < cidAt + partEnd; at++) part = part * 256 + (bytes[at] ?? 0)
  return part
}

const [partStart, partEnd] = [8, 14]
