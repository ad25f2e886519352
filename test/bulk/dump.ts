import { Database } from 'bun:sqlite'

/** Every row of every table of a database, to be compared: two that are equal hold the same. */
export function dumpOf(path: string): string {
  using database = new Database(path, { readonly: true })
  // All as of one moment, whoever else writes.
  database.run('begin')
  const tables = database
    .query<{ name: string }, []>("select name from sqlite_schema where type = 'table'")
    .all()
    .map(({ name }) => name)
  return ['sqlite_schema', ...tables].map((name) => rowsOf(database, name)).join('\n\n')
}

function rowsOf(database: Database, name: string): string {
  const rows = database.query(`select * from "${name}"`).values()
  const lines = rows.map((row) => row.map((value) => (isBytes(value) ? value.toHex() : value)))
  return [name, ...lines.map((line) => JSON.stringify(line))].join('\n')
}

function isBytes(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array
}
