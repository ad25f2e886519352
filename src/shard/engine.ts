import type { Schemas } from '../atproto/lexicon.ts'
import { type Fault, faultOf, internalFault, XrpcError } from '../atproto/errors.ts'
import { unreachable } from '../lib/assert.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Log } from '../lib/log.ts'
import { Turns } from '../lib/turns.ts'
import { isBlobCall } from '../service/blob-calls.ts'
import type { ActorAnswers } from '../service/calls.ts'
import { Journal } from '../store/journal.ts'
import { Actors } from './actors.ts'
import { Blobs } from './blobs.ts'
import type { EventPush, ShardBoot, ShardMessage, ShardReply, ShardRequest } from './messages.ts'
import { Events } from './events.ts'
import { Loans } from './loans.ts'
import { Ops } from './ops.ts'
import { Outboxes } from './outboxes.ts'
import { Proofs } from './proofs.ts'
import { Reads } from './reads.ts'
import { joinReplies, unpackedReply } from './replies.ts'
import { Repos } from './repos.ts'
import { Writes } from './writes.ts'

/** The owner of some actors: it decides and stores their writes and answers their reads. */
export class Engine {
  readonly #actors: Actors
  readonly #journal: Journal
  readonly #reads: Reads
  readonly #proofs: Proofs
  readonly #writes: Writes
  readonly #events: Events
  readonly #ops: Ops
  readonly #blobs: Blobs
  readonly #outboxes: Outboxes
  readonly #loans: Loans
  readonly #repos: Repos
  readonly #turns = new Turns<Did>()
  readonly #log: Log
  readonly #send: (message: ShardMessage) => void
  /** JSON of replies that wait to be sent, and the texts of their records. */
  #replies: string[] = []
  #texts: string[] = []
  #bytes = 0
  #flushing = false
  #running = 0
  #idle: (() => void) | undefined

  constructor(
    boot: ShardBoot,
    parts: { schemas: Schemas; log: Log; send: (message: ShardMessage) => void },
  ) {
    this.#log = parts.log
    this.#send = parts.send
    const repos = new Repos(boot.treeBytesMax)
    this.#repos = repos
    this.#actors = new Actors({ ...boot, onClosed: (did) => repos.closed(did) })
    const turns = this.#turns
    const { schemas, log } = parts
    const journal = new Journal({ ...boot, log })
    this.#journal = journal
    this.#reads = new Reads(this.#actors)
    this.#proofs = new Proofs(this.#actors, repos, turns)
    const { vouched, rules } = boot
    const { boundaries } = rules
    const push = (what: EventPush, bytes: Uint8Array<ArrayBuffer>) => {
      this.#send({ push: what, bytes })
    }
    this.#events = new Events({ actors: this.#actors, turns, boundaries, vouched, push })
    const events = this.#events
    this.#writes = new Writes(this.#actors, repos, { boot, journal, schemas, turns, events })
    this.#ops = new Ops(this.#actors)
    this.#blobs = new Blobs(this.#actors, turns)
    this.#loans = new Loans(this.#actors, repos, { turns, events })
    this.#outboxes = new Outboxes(this.#actors, turns, boot.rules)
  }

  /** @param batch JSON array of numbered requests, each of an actor that this engine owns */
  receive(batch: string): void {
    const requests: ShardRequest[] = JSON.parse(batch)
    for (const request of requests) {
      this.#running += 1
      void this.#answer(request).finally(() => {
        this.#running -= 1
        if (this.#running === 0) this.#idle?.()
      })
    }
  }

  /** Whether to send along what is stored. */
  follow(following: boolean): void {
    this.#events.follow(following)
  }

  /** Finishes what runs and closes the databases. */
  async close(): Promise<void> {
    if (this.#running > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#idle = resolve
      await promise
    }
    this.#flush()
    try {
      this.#journal.close()
    } catch (error) {
      // On a full disk, for example. What was acknowledged is there for the next start.
      this.#log.error('journal.left', { error })
    }
    await this.#actors.close()
  }

  async #answer(request: ShardRequest): Promise<void> {
    try {
      const ok = await this.#handle(request)
      if ('bytes' in ok) this.#send({ ...ok, id: request.id, bytes: ok.bytes })
      else this.#reply({ id: request.id, ok })
    } catch (error) {
      this.#reply({ id: request.id, error: this.#refusal(error, request) })
    }
  }

  async #handle(request: ShardRequest): Promise<ActorAnswers[keyof ActorAnswers]> {
    const { did } = request
    if (isBlobCall(request)) return await this.#blobs.answer(did, request)
    switch (request.kind) {
      case 'key':
        return { signingKey: this.#actors.signingKey(did).did }
      case 'open':
        return await this.#writes.open(did, request)
      case 'write':
        return await this.#writes.write(request)
      case 'read':
        return await this.#reads.record(did, request)
      case 'prove':
        return await this.#proofs.prove(did, request)
      case 'head':
        return await this.#actors.use(did, async ({ head: { cid, rev } }) => ({ cid, rev }))
      case 'list':
        return await this.#reads.list(did, request)
      case 'hydrate':
        return await this.#reads.hydrate(did, request)
      case 'targets':
        return await this.#reads.targets(did, request)
      case 'collections':
        return {
          collections: await this.#actors.use(did, ({ store }) => store.collections(request.view)),
        }
      case 'settle':
        return await this.#reads.settle(did)
      case 'lend':
        return await this.#loans.lend(did)
      case 'return':
        return await this.#loans.giveBack(did)
      case 'events':
        return await this.#events.page(did, request)
      case 'last':
        return await this.#events.last(did)
      case 'vouch':
        return await this.#events.vouch(did, request.seq)
      case 'prune':
        return await this.#events.prune(did, request.time)
      case 'status':
        return await this.#events.status(did, request)
      case 'ops':
        return await this.#ops.page(did, request)
      case 'queue':
        return await this.#outboxes.queue(did, request.outbox)
      case 'outbox':
        return await this.#outboxes.rows(did, request.limit)
      case 'outbox-state':
        return await this.#outboxes.state(did, request.parkedMax)
      case 'report':
        return await this.#outboxes.report(did, request)
      case 'restub':
        return await this.#outboxes.restub(did, request)
      case 'leave':
        return await this.#turns.run(did, () => this.#actors.leave(did))
      case 'stay':
        this.#actors.stay(did)
        return {}
      case 'erase':
        return await this.#turns.run(did, () => this.#erase(did))
      default:
        return unreachable(request)
    }
  }

  async #erase(did: Did): Promise<ActorAnswers['erase']> {
    this.#repos.forget(did)
    this.#reads.forget()
    this.#events.gone(did)
    await this.#actors.erase(did)
    this.#journal.wipe()
    return {}
  }

  #refusal(error: unknown, { did, kind, requestId }: ShardRequest): Fault {
    if (error instanceof XrpcError) return faultOf(error)
    this.#log.error('shard.request.failed', { did, kind, requestId, error })
    return internalFault
  }

  #reply(reply: ShardReply): void {
    const { head, texts } = unpackedReply(reply)
    this.#replies.push(head)
    this.#bytes += head.length
    for (const text of texts) {
      this.#texts.push(text)
      this.#bytes += text.length
    }
    const full = this.#replies.length >= repliesMax || this.#bytes >= repliesBytesMax
    if (full || this.#running === 1) this.#flush()
    else if (!this.#flushing) {
      this.#flushing = true
      setImmediate(() => this.#flush())
    }
  }

  #flush(): void {
    this.#flushing = false
    if (this.#replies.length === 0) return
    const message = joinReplies(this.#replies, this.#texts)
    this.#replies = []
    this.#texts = []
    this.#bytes = 0
    this.#send(message)
  }
}

/** Replies that wait at most for others of their tick before they are sent. */
const repliesMax = 16
const repliesBytesMax = 1024 * 1024
