import { readConfig } from '../../src/config.ts'
import { createLog } from '../../src/lib/log.ts'
import { openFeeds } from '../../src/serve/appview.ts'
import { serve } from '../../src/serve.ts'

// A service that answers feeds, too, until it is told to end.
const config = readConfig(process.env)
const running = await serve(config, {
  log: createLog(config.logLevel, (line) => process.stderr.write(`${line}\n`)),
  version: '0.0.0',
  startWorker: () => new Worker(new URL('../../src/worker.ts', import.meta.url).href),
  died: () => process.exit(70),
  openFeeds,
})
process.once('SIGTERM', () => {
  void running.stop().then(() => process.exit(0))
})
