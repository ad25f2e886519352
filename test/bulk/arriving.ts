import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lenders } from '../../src/bulk/bulk.ts'
import type { ImportAsk, Imported } from '../../src/bulk/messages.ts'
import { a, b } from '../service/posts.ts'
import type { Actor, House } from '../shard/pools.ts'

export type Arriving = Partial<Omit<ImportAsk, 'kind' | 'did' | 'path'> & Lenders>

/** Brings a CAR to an actor who is in a and b, as the door does once it has all of it. */
export async function importInto(
  house: House,
  actor: Actor,
  { car, ...over }: Arriving & { readonly car: Uint8Array },
): Promise<Imported> {
  const { did } = actor
  const folder = mkdtempSync(join(house.dataDir, 'import-'))
  const path = join(folder, 'body')
  const { lend, giveBack, targets, ...facts } = { ...lendersOf(house, actor), ...over }
  try {
    writeFileSync(path, car)
    const lists = { boundaries: [a, b], boundaryMap: [], takendown: [], stubs: [] }
    const plain = { ...lists, bytesMax: 256 * 1024 * 1024 }
    return await house.bulk.import({ did, path, ...plain, ...facts }, { lend, giveBack, targets })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Those of the service, with nobody else whose records could be answered. */
function lendersOf(house: House, { did }: Actor): Lenders {
  return {
    lend: async () => await house.pool.call(did, 'test', { kind: 'lend' }),
    giveBack: async () => void (await house.pool.call(did, 'test', { kind: 'return' })),
    targets: async () => ({}),
  }
}
