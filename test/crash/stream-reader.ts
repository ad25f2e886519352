import type { Subscriber, Told } from '../kit/subscriber.ts'

type Cursors = Readonly<Record<string, number>>

/**
 * A reader of a stream who comes and goes, and each time goes on from the last that they have. What
 * they were told must be all there is, once, and in order.
 */
export class StreamReader {
  readonly name: string
  /** Commits and statuses without their records, by account. */
  readonly events = new Map<string, string[]>()
  readonly #open: (cursors: Cursors) => Promise<Subscriber>
  readonly #cursors = new Map<string, number>()
  #subscriber: Subscriber | undefined
  /** Those that the reader closed, and not the service. */
  readonly #left = new WeakSet<Subscriber>()
  #taken = 0

  constructor(name: string, open: (cursors: Cursors) => Promise<Subscriber>) {
    this.name = name
    this.#open = open
  }

  async connect(): Promise<void> {
    this.#taken = 0
    try {
      this.#subscriber = await this.#open(Object.fromEntries(this.#cursors))
    } catch (cause) {
      throw new Error(`${this.name} could not connect`, { cause })
    }
  }

  /** Keeps what came so far; what is still on its way is for the next time. */
  disconnect(): void {
    this.#take()
    const subscriber = this.#subscriber
    if (subscriber?.socket.readyState === WebSocket.OPEN) this.#left.add(subscriber)
    subscriber?.[Symbol.dispose]()
    this.#subscriber = undefined
  }

  /** Resolves when this connection, if there is one, has ended, with code and reason. */
  async ended(): Promise<readonly [number, string] | undefined> {
    return await this.#subscriber?.closed
  }

  /** As `ended`, in good time, and undefined where the reader left by themselves. */
  async sentAway(): Promise<readonly [number, string] | undefined> {
    const subscriber = this.#subscriber
    const end = await subscriber?.end()
    return subscriber !== undefined && this.#left.has(subscriber) ? undefined : end
  }

  /** Reads on until something is there. */
  async until(did: string, text: string): Promise<void> {
    await this.#subscriber?.until(`${text} for ${this.name}`, () => {
      this.#take()
      return this.events.get(did)?.some((event) => event.includes(text)) ? true : undefined
    })
  }

  #take(): void {
    const told = this.#subscriber?.told ?? []
    for (; this.#taken < told.length; this.#taken++) {
      const one = told[this.#taken]
      if (one !== undefined) this.#takeOne(one)
    }
  }

  #takeOne({ type, body }: Told): void {
    if (type === '#enrollment' || type === '#info') return
    if (type === 'error') throw new Error(`${this.name} was told ${JSON.stringify(body)}`)
    const { did, seq } = body
    if (typeof did !== 'string' || typeof seq !== 'number') throw new Error('an event has a place')
    const last = this.#cursors.get(did) ?? 0
    if (seq <= last) throw new Error(`${this.name} was told ${seq} of ${did} after ${last}`)
    this.#cursors.set(did, seq)
    const events = this.events.get(did) ?? []
    events.push(eventText(type, body))
    this.events.set(did, events)
  }
}

function eventText(type: string, { ops, ...facts }: Told['body']): string {
  const shown: unknown[] = Array.isArray(ops)
    ? ops.map(({ action, path, cid }) => `${action} ${path} ${cid?.$link ?? ''}`)
    : []
  return JSON.stringify({ type, ...facts, ops: shown })
}
