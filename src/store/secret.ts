import { randomBytes } from 'node:crypto'
import { assert } from '../lib/assert.ts'
import type { Sql } from './sql.ts'

/** Random bytes under a name, made by whoever asks first and the same for all who ask later. */
export async function sharedSecret(sql: Sql, name: string): Promise<Uint8Array> {
  const made = randomBytes(32).toString('base64url')
  const insert = 'insert into meta (name, value) values ($1, $2) on conflict (name) do nothing'
  await sql.run([{ sql: insert, args: [name, made] }])
  const select = 'select value from meta where name = $1'
  const [row] = await sql.all<{ readonly value: string }>(select, name)
  assert(row !== undefined, 'a secret that was stored is there')
  return Buffer.from(row.value, 'base64url')
}
