import { schemaDocs } from '../../src/atproto/schemas.ts'
import type { BulkBoot } from '../../src/bulk/messages.ts'
import { seedBoot } from '../kit/seed.ts'
import { serviceDid } from '../service/posts.ts'

/** Of a thread that cuts nobody off, and stays. */
export function bulkBoot(dataDir: string, over: Partial<BulkBoot> = {}): BulkBoot {
  return {
    role: 'bulk',
    dataDir,
    logLevel: 'silent',
    schemas: JSON.stringify(schemaDocs),
    rules: seedBoot(dataDir, serviceDid).rules,
    treeBytesMax: 64 * 1024 * 1024,
    pace: { msMax: 60_000, windowBytesMin: 0, windowMs: 60_000, lookEveryMs: 1_000 },
    idleMs: 60_000,
    ...over,
  }
}
