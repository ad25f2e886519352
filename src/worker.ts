import { Schemas } from './atproto/lexicon.ts'
import { Jobs } from './bulk/jobs.ts'
import type { BulkBoot, BulkOrder, BulkSign } from './bulk/messages.ts'
import { createLog, type LogFields, type LogLevel } from './lib/log.ts'
import { Engine } from './shard/engine.ts'
import type { ShardBoot, ShardMessage, WorkerOrder, WorkerSign } from './shard/messages.ts'

// The entry of a thread: the first message is its boot, which says what it is for.
declare const self: Worker

self.addEventListener(
  'message',
  ({ data }: MessageEvent<ShardBoot | BulkBoot>) => {
    if (data.role === 'shard') serveShard(data)
    else serveBulk(data)
  },
  { once: true },
)

function serveShard(boot: ShardBoot): void {
  const log = logOf(boot.logLevel, { shard: boot.name })
  const schemas = new Schemas(JSON.parse(boot.schemas))
  const engine = new Engine(boot, { schemas, log, send: answer })
  const close = async (): Promise<void> => {
    await engine.close()
    say({ sign: 'closed' })
  }
  self.addEventListener('message', ({ data }: MessageEvent<WorkerOrder>) => {
    if (typeof data === 'string') engine.receive(data)
    else if ('follow' in data) engine.follow(data.follow)
    else void close()
  })
  say({ sign: 'ready' })
}

function serveBulk(boot: BulkBoot): void {
  const log = logOf(boot.logLevel, { thread: 'bulk' })
  const jobs = new Jobs(boot, { log, send, collect: () => Bun.gc(true) })
  self.addEventListener('message', ({ data }: MessageEvent<BulkOrder>) => jobs.receive(data))
}

function logOf(level: LogLevel, fields: LogFields) {
  return createLog(level, (line) => process.stderr.write(`${line}\n`), fields)
}

function answer(message: ShardMessage): void {
  if (typeof message === 'string') self.postMessage(message)
  else self.postMessage(message, [message.bytes.buffer])
}

function send(sign: BulkSign): void {
  self.postMessage(sign, 'piece' in sign ? [sign.piece.buffer] : [])
}

function say(sign: WorkerSign): void {
  self.postMessage(sign)
}
