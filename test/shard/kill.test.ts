import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { endWithUs } from '../kit/child.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { type Actor, House, newDid } from './pools.ts'

const folder = temporaryFolder()
const writer = fileURLToPath(new URL('./writer.ts', import.meta.url))
const kills = 4
/** So many among twelve writers that one of them has deleted something. */
const acksMax = 80

test.each(['full', 'normal'] as const)(
  'with synchronous %s every acknowledged write survives a kill, and the repo verifies',
  async (synchronous) => {
    const dataDir = join(folder, synchronous)
    const dids = [newDid(), newDid(), newDid()]
    const command = [process.execPath, writer, dataDir, synchronous, ...dids]
    const said: string[] = []
    for (let kill = 0; kill < kills; kill++) {
      const isLast = kill === kills - 1
      const acks = isLast ? acksMax : 1 + Math.floor(Math.random() * acksMax)
      said.push(...(await linesOfKilled(command, acks)))
      const house = await House.open('inline', dataDir)
      for (const did of dids) {
        const { signingKey } = await house.pool.call(did, 'test', { kind: 'key' })
        await expectAcknowledged(house.known(did, signingKey), said)
      }
      await house.pool.close()
    }
    expect(said.some((line) => line.startsWith('deleted'))).toBeTrue()
  },
  30_000,
)

/** Runs it, kills it after so many acknowledged writes, and gives all that it said. */
async function linesOfKilled(command: readonly string[], acks: number): Promise<string[]> {
  const child = Bun.spawn([...command], { stdio: ['ignore', 'pipe', 'inherit'] })
  const forget = endWithUs(() => child.kill('SIGKILL'))
  let said = ''
  // Ends with the process: whatever it said before the kill is read.
  for await (const bytes of child.stdout) {
    said += Buffer.from(bytes).toString('latin1')
    if (said.split('created').length > acks) child.kill('SIGKILL')
  }
  await child.exited
  forget()
  expect(child.signalCode).toBe('SIGKILL')
  return said.slice(0, said.lastIndexOf('\n')).split('\n')
}

async function expectAcknowledged(actor: Actor, said: readonly string[]): Promise<void> {
  const mine = said.map((line) => line.split(' ')).filter(([, did]) => did === actor.did)
  const of = (verb: string) => mine.filter(([said]) => said === verb)
  const unsure = new Set(of('deleting').map(([, , rkey]) => rkey))
  const { rev, cids } = await actor.verified()

  const lost = of('created').filter(
    ([, , rkey = '', cid]) => !unsure.has(rkey) && cids.get(rkey) !== cid,
  )
  expect(lost).toEqual([])
  expect(of('deleted').filter(([, , rkey = '']) => cids.has(rkey))).toEqual([])
  expect(await actor.rkeys()).toEqual([...cids.keys()].toSorted())

  using database = new Database(actor.database, { readonly: true })
  const [facts] = database
    .query<object, []>(
      `select (select count(*) from stratos_repo_block) as blocks, max(rev) as rev,
        max(seq) - count(*) as gaps from stratos_seq`,
    )
    .all()
  expect(facts).toEqual({ blocks: cids.size, rev, gaps: 0 })
}
