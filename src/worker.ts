import { Schemas } from './atproto/lexicon.ts'
import { createLog } from './lib/log.ts'
import { Engine } from './shard/engine.ts'
import type { ShardBoot, ShardMessage, WorkerOrder, WorkerSign } from './shard/messages.ts'

// The entry of a shard's thread: the first message is its boot, the next ones are batches.
declare const self: Worker

let engine: Engine | undefined

self.addEventListener('message', ({ data }: MessageEvent<WorkerOrder>) => {
  if (typeof data === 'string') engine?.receive(data)
  else if ('close' in data) void close()
  else {
    engine = start(data)
    say({ sign: 'ready' })
  }
})

function start(boot: ShardBoot): Engine {
  const log = createLog(boot.logLevel, (line) => process.stderr.write(`${line}\n`), {
    shard: boot.name,
  })
  return new Engine(boot, { schemas: new Schemas(JSON.parse(boot.schemas)), log, send })
}

async function close(): Promise<void> {
  await engine?.close()
  say({ sign: 'closed' })
}

function send(message: ShardMessage): void {
  if (typeof message === 'string') self.postMessage(message)
  else self.postMessage(message, [message.bytes.buffer])
}

function say(sign: WorkerSign): void {
  self.postMessage(sign)
}
