import { join } from 'node:path'
import type { Sql } from '../../src/store/sql.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import type { SeededStratos } from './seeded.ts'

/**
 * Changes service.sqlite while nobody else has it open: what would otherwise take a PDS, or a day.
 * @param env settings that the service then starts again with
 */
export async function whileStopped<T>(
  stratos: SeededStratos,
  change: (sql: Sql) => Promise<T>,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  await stratos.terminate()
  const options = { synchronous: 'normal', cacheKib: 1024, exclusive: true } as const
  const sql = openSqlite(join(stratos.dataFolder, 'service.sqlite'), options)
  try {
    return await change(sql)
  } finally {
    await sql.close()
    await stratos.run(env)
  }
}
