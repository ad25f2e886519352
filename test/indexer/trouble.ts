import { createHash } from 'node:crypto'
import { connectIndex, type IndexSql } from '../../src/indexer/database.ts'
import { eventually } from '../kit/wait.ts'

/** So long that no index has a place for it, and nothing makes it shorter. */
const long = Array.from({ length: 100 }, (_, index) =>
  createHash('sha512').update(String(index)).digest('hex'),
).join('')
const far = { uri: `at://${long}`, cid: 'c' }
/** Makes a post one that the database refuses. */
export const unindexable = { reply: { root: far, parent: far } }

/** Runs `write`, and ends its connection once rows of posts are about to be stored. */
export async function killed(url: string, write: () => Promise<void>): Promise<void> {
  const operator = connectIndex({ url, connectionsMax: 2 })
  let written: Promise<void> | undefined
  await operator.begin(async (transaction) => {
    await transaction`lock table stratos_post_boundary in exclusive mode`
    written = write()
    const stored = written.then(() => 'stored' as const)
    const look = () => Promise.race([waiting(operator), stored])
    const found = await eventually('transaction that waits', look, { everyMs: 5 })
    // All of it may be passed over, and nothing is stored.
    if (found !== 'stored') await operator`select pg_terminate_backend(${found})`
  })
  await operator.end()
  await written
}

async function waiting(operator: IndexSql): Promise<number | undefined> {
  const [row] = await operator<{ pid: number }[]>`
    select pid from pg_stat_activity where datname = current_database()
      and wait_event_type = 'Lock' and pid <> pg_backend_pid()`
  return row?.pid
}
