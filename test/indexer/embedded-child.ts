import { EmbeddedPostgres } from '../../src/indexer/embedded-postgres.ts'
import { createLog } from '../../src/lib/log.ts'

/**
 * A process with a server of its own: says where that is, and ends when it is told to.
 * Usage: bun embedded-child.ts <folder>
 */
const [folder = ''] = process.argv.slice(2)
const log = createLog('warn', (line) => process.stderr.write(`${line}\n`))
const { signal } = new AbortController()
const atExit = () => () => undefined
await using server = await EmbeddedPostgres.start({ folder, log, signal, atExit })
process.stdout.write(`${JSON.stringify({ url: server.url, pid: server.pid })}\n`)
await new Promise((resolve) => process.once('SIGTERM', resolve))
