import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { migrateSqlite } from '../../src/store/migrate.ts'
import type { Enrollment } from '../../src/store/service.ts'
import type { Sql, Statement } from '../../src/store/sql.ts'
import { openSqlite } from '../../src/store/sqlite.ts'

/** A new service.sqlite in `folder`, of which a test may watch and cut off what is written. */
export async function serviceSql(
  folder: string,
  before: (batch: readonly Statement[]) => Promise<void> = async () => undefined,
): Promise<Sql> {
  const path = join(folder, `${crypto.randomUUID()}.sqlite`)
  const sqlite = openSqlite(path, { synchronous: 'normal', cacheKib: 256, exclusive: true })
  await migrateSqlite(sqlite, texts('migrations/service/sqlite'))
  return {
    all: (sql, ...args) => sqlite.all(sql, ...args),
    run: async (batch) => {
      await before(batch)
      await sqlite.run(batch)
    },
    scrub: () => sqlite.scrub(),
    close: () => sqlite.close(),
  }
}

export function enrollmentOf(did: Did, over: Partial<Enrollment> = {}): Enrollment {
  return {
    did,
    boundaries: [],
    pdsEndpoint: 'https://pds.test',
    signingKey: 'did:key:z',
    rkey: 'did:web:stratos.test',
    enrolledAt: '2026-11-23T00:00:00.000Z',
    scope: 'atproto',
    active: true,
    ...over,
  }
}
