// A process whose journal can no longer be written.
import { closeSync, readdirSync, readlinkSync } from 'node:fs'
import { failureOf } from '../kit/wait.ts'
import { Journaled } from './journaled.ts'

const house = new Journaled(process.argv[2] ?? '')
const writer = await house.writer()
await writer.write('one')
for (const name of readdirSync('/proc/self/fd')) {
  try {
    const path = readlinkSync(`/proc/self/fd/${name}`)
    if (path.includes('/journal/')) closeSync(Number(name))
  } catch {
    // The descriptor of the listing itself is gone by now.
  }
}
for (const rkey of ['two', 'three']) {
  const failure = await failureOf(writer.write(rkey))
  process.stdout.write(`${rkey}: ${String(failure)}\n`)
}
process.stdout.write(`${(await writer.seen()).join()}\n`)
process.stdout.write(house.log.join(''))
process.exit(0)
