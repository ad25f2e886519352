import type { Sqlite } from './sqlite.ts'

/** Migration texts by file name, such as `0001-first.sql`. */
export type Migrations = Readonly<Record<string, string>>

/**
 * Brings a database to the newest migration, each in its own transaction, in the order of numbers.
 * @throws {@link MigrationError} when the database was written by a newer program
 */
export async function migrateSqlite(database: Sqlite, migrations: Migrations): Promise<void> {
  const steps = Object.entries(migrations)
    .map(([name, sql]) => ({ version: Number.parseInt(name, 10), name, sql }))
    .sort((a, b) => a.version - b.version)
  const newest = steps.at(-1)?.version ?? 0
  const [row] = await database.all<{ user_version: number }>('pragma user_version')
  const present = row?.user_version ?? 0
  if (present > newest) {
    throw new MigrationError(
      `the database is at version ${present}, this program knows versions up to ${newest}: ` +
        'start the newer program that wrote it',
    )
  }
  for (const step of steps) {
    if (step.version <= present) continue
    try {
      // On lines of their own: a text may end in a comment, which would hide what follows it.
      database.script(
        `begin immediate;\n${step.sql}\n;pragma user_version = ${step.version};commit`,
      )
    } catch (error) {
      database.undo()
      throw new MigrationError(`migration ${step.name} failed`, { cause: error })
    }
  }
}

export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}
