import { writeSync } from 'node:fs'
import { parseDid } from '../../src/atproto/syntax.ts'
import type { Synchronous } from '../../src/store/sqlite.ts'
import { type Actor, House } from './pools.ts'

/**
 * Writes to some actors without end, several writers each, and says on standard output what was
 * acknowledged: `created <did> <rkey> <cid>`, `deleted <did> <rkey>`, and `deleting` before it asks
 * for that. To be killed. Usage: bun test/shard/writer.ts <data folder> <synchronous> <did>...
 */
const [dataDir = '', synchronous, ...dids] = process.argv.slice(2)
const writersOfActor = 4
/** Of what a writer makes, so many records stand until it deletes the oldest. */
const keptMax = 3

const boots = [1, 2].map((clockId) => ({ clockId, synchronous: modeOf(synchronous) }))
const house = await House.open('worker', dataDir, boots)
const actors = await Promise.all(dids.map((did) => house.actor(parseDid(did))))
await Promise.all(
  actors.flatMap((actor) => Array.from({ length: writersOfActor }, () => writeTo(actor))),
)

async function writeTo(actor: Actor): Promise<void> {
  const kept: string[] = []
  for (;;) {
    const { uri = '', cid } = await actor.create()
    const rkey = uri.slice(uri.lastIndexOf('/') + 1)
    say(`created ${actor.did} ${rkey} ${cid}`)
    kept.push(rkey)
    if (kept.length <= keptMax) continue
    const oldest = kept.shift() ?? ''
    say(`deleting ${actor.did} ${oldest}`)
    await actor.remove(oldest)
    say(`deleted ${actor.did} ${oldest}`)
  }
}

/** At once: a line must not wait in a buffer when the kill comes. */
function say(line: string): void {
  writeSync(1, `${line}\n`)
}

function modeOf(text: string | undefined): Synchronous {
  if (text === 'full' || text === 'normal') return text
  throw new Error('the second argument is full or normal')
}
