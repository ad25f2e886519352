import { Database } from 'bun:sqlite'
import { parseRkey } from '../../src/atproto/syntax.ts'
import { collection, post } from '../service/posts.ts'
import type { Actor } from '../shard/pools.ts'

const records = 40
const recordBytes = 200 * 1024
/** More than the buffers between a thread and a reader hold. */
export const largeBytes = records * recordBytes

export async function fillWithLarge(actor: Actor): Promise<void> {
  const extra = 'x'.repeat(recordBytes)
  const ops = Array.from({ length: records }, (_, index) => ({
    action: 'create' as const,
    collection,
    rkey: parseRkey(`large-${index}`),
    record: post({ extra }),
  }))
  while (ops.length > 0) await actor.apply(ops.splice(0, 4))
}

/** Whether somebody still reads the database as it was, so that its log cannot be emptied. */
export function isPinned({ database }: Pick<Actor, 'database'>): boolean {
  using handle = new Database(database)
  // Without a change there might be nothing to copy back, and no reader in the way.
  handle.run('create table if not exists probe (id integer)')
  handle.run('insert into probe values (1)')
  const [answer] = handle.query<{ busy: number }, []>('pragma wal_checkpoint(truncate)').all()
  return answer?.busy !== 0
}
