import { measureMemory } from './kit/memory.ts'
import { listOption, numberOption, option, print } from './kit/report.ts'
import { measureWrites, type WriteLoad, writeLoads } from './kit/write-run.ts'

/**
 * Writes over HTTP against a service process of its own; the load comes from a process of its own,
 * too. See README.md.
 * Usage: bun bench/write.ts [--seconds 2] [--synchronous full,normal] [--load one,actors,memory]
 *   [--people 1000] [--posts 100] [--shards 2] [--binary dist/stratos]
 */
/** Beyond it, one busy repo would be larger than what is exported for the verification. */
const secondsMax = 10
const seconds = numberOption('seconds', { fallback: 2, max: secondsMax })
const people = numberOption('people', { fallback: 1000, max: 10_000 })
const posts = numberOption('posts', { fallback: 100, max: 1000 })
const wanted = listOption('load', [...writeLoads, 'memory'])
const loads = wanted.filter((load): load is WriteLoad => load !== 'memory')
const build = { binary: option('binary') }

if (loads.length > 0) {
  for (const synchronous of listOption('synchronous', ['full', 'normal'])) {
    const shards = option('shards')
    await measureWrites({ build, synchronous, seconds, loads, shards, people })
  }
}
if (wanted.includes('memory')) await measureMemory({ build, people, posts })
print('every answer was as expected')
process.exit()
