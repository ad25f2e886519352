import type { Did } from '../../src/atproto/syntax.ts'
import { nextTid } from '../../src/atproto/tid.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { within } from '../kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf, xrpc } from '../kit/xrpc.ts'
import type { Dice } from './dice.ts'
import type { Note, Write } from './ledger.ts'

export interface LoadOptions {
  readonly url: string
  /** Qualified. */
  readonly boundary: string
  readonly dice: Dice
  /** Called before a request is sent, and after its answer has come. */
  readonly note: (note: Note) => void
  /** Of the first request. */
  readonly number: number
  /** Of every record; by default most are small, and some need pages of their own. */
  readonly chars?: number
}

/**
 * Writers that write without end, each to keys of its own and one request at a time, so that it is
 * known at any moment what has to be there.
 */
export class Load {
  /** Requests that were answered. */
  answers = 0
  /** Of the next request. */
  number: number
  readonly #options: LoadOptions
  readonly #writers: Promise<void>[] = []
  /** Who waits for so many answers. */
  #awaited: { readonly count: number; readonly come: () => void } | undefined
  #ending = false
  #lastKey = nextTid({ nowMs: Date.now(), clockId })

  constructor(options: LoadOptions) {
    this.#options = options
    this.number = options.number
  }

  /** @param rkeys records that are there and become this writer's */
  startWriter(did: Did, rkeys: readonly string[]): void {
    this.#writers.push(this.#write(did, [...rkeys]))
  }

  /** Waits until so many requests were answered. @throws where a writer fails before */
  async answered(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#awaited = { count, come: resolve }
    const what = `${count} answers`
    await within(answersMsMax, what, Promise.race([promise, this.ended()]))
  }

  /** From now on a request may go without an answer. */
  expectEnd(): void {
    this.#ending = true
  }

  /** Waits until every writer has ended. @throws what was no consequence of the end */
  async ended(): Promise<void> {
    await Promise.all(this.#writers)
  }

  async #write(did: Did, rkeys: string[]): Promise<void> {
    let after: number | undefined
    while (!this.#ending) {
      const writes = this.#plan(rkeys)
      const number = this.number++
      this.#options.note({ kind: 'asked', number, after, did, writes })
      let answer: Answer
      try {
        answer = await this.#send(did, number, writes)
      } catch (error) {
        if (this.#ending) return
        throw error
      }
      if (answer.status !== 200) {
        throw new Error(`a write was answered ${answer.status} ${JSON.stringify(answer.body)}`)
      }
      this.#options.note({ kind: 'answered', number, ...told(answer.body, writes) })
      this.answers += 1
      if (this.answers === this.#awaited?.count) this.#awaited.come()
      after = number
      for (const { action, rkey } of writes) {
        if (action === 'create') rkeys.push(rkey)
        if (action === 'delete') rkeys.splice(rkeys.indexOf(rkey), 1)
      }
    }
  }

  /** One write, or now and then several as one commit. */
  #plan(rkeys: readonly string[]): Write[] {
    const { dice } = this.#options
    const writes: Write[] = []
    const count = dice.oneIn(4) ? dice.between(2, this.#options.chars === undefined ? 8 : 3) : 1
    const free = [...rkeys]
    while (writes.length < count) {
      const isFull = rkeys.length >= keptMax
      const action = free.length === 0 ? 'create' : dice.one(isFull ? shrinking : growing)
      if (action === 'create') writes.push({ action, rkey: this.#newKey() })
      else writes.push({ action, rkey: dice.one(free.splice(dice.below(free.length), 1)) })
    }
    return writes
  }

  async #send(did: Did, number: number, writes: readonly Write[]): Promise<Answer> {
    const call = (name: string, input: object) =>
      xrpc(this.#options.url, `zone.stratos.repo.${name}`, {
        input: { repo: did, ...input },
        authorization: `Bearer ${did}`,
      })
    const [first] = writes
    if (first !== undefined && writes.length === 1) {
      const at = { collection: postCollection, rkey: first.rkey }
      if (first.action === 'delete') return await call('deleteRecord', at)
      const name = first.action === 'create' ? 'createRecord' : 'putRecord'
      return await call(name, { ...at, record: this.#record(number) })
    }
    return await call('applyWrites', {
      writes: writes.map(({ action, rkey }) => ({
        $type: `zone.stratos.repo.applyWrites#${action}`,
        collection: postCollection,
        rkey,
        ...(action === 'delete' ? {} : { value: this.#record(number) }),
      })),
    })
  }

  #record(number: number): object {
    const { dice, boundary, chars } = this.#options
    const size = chars ?? (dice.oneIn(10) ? dice.below(20_000) : dice.below(200))
    const [uri, title, description] = ['https://example.com', '', 'd'.repeat(size)]
    const embed = { $type: 'app.bsky.embed.external', external: { uri, title, description } }
    return { ...privatePost(textOfRequest(number), [boundary]), embed }
  }

  #newKey(): string {
    this.#lastKey = nextTid({ nowMs: Date.now(), clockId, after: this.#lastKey })
    return this.#lastKey
  }
}

/** Far more than any machine needs for the few that are waited for. */
const answersMsMax = 60_000
/** Of what a writer makes, about so many records stand. */
const keptMax = 10
const clockId = 1023
const growing = ['create', 'create', 'update', 'delete'] as const
const shrinking = ['update', 'delete', 'delete'] as const

function textOfRequest(number: number): string {
  return `request ${number}`
}

/** Number of the request that wrote a record. */
export function requestOfText(text: string): number {
  return Number(/^request (\d+)$/.exec(text)?.[1])
}

function told(body: Readonly<Record<string, unknown>>, writes: readonly Write[]) {
  const made = fieldsOf(body, 'commit')
  const results = 'results' in body ? listOf(body, 'results') : [body]
  const cids = writes.map(({ action }, index) =>
    action === 'delete' ? null : textOf(results[index] ?? {}, 'cid'),
  )
  return { cids, rev: textOf(made, 'rev'), commit: textOf(made, 'cid') }
}
