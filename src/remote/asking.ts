export interface Limit {
  /** Of what is limited: a host, or all look-ups of a kind. */
  readonly name: string
  readonly most: number
}

/**
 * Look-ups that are under way: one a key, and no more at once than the host behind it, or this
 * process, can bear.
 */
export class Asking<Key, Answer> {
  readonly #limits: (key: Key) => readonly Limit[]
  readonly #running = new Map<Key, Promise<Answer>>()
  readonly #counts = new Map<string, number>()

  /** @param limits all that a look-up of this key counts against */
  constructor(limits: (key: Key) => readonly Limit[]) {
    this.#limits = limits
  }

  /** The answer that is on its way for this key, or a new one; undefined when there is no room. */
  share(key: Key, ask: () => Promise<Answer>): Promise<Answer> | undefined {
    const running = this.#running.get(key)
    if (running !== undefined) return running
    const limits = this.#limits(key)
    if (limits.some(({ name, most }) => (this.#counts.get(name) ?? 0) >= most)) return undefined
    for (const { name } of limits) this.#count(name, 1)
    const asked = ask().finally(() => {
      this.#running.delete(key)
      for (const { name } of limits) this.#count(name, -1)
    })
    this.#running.set(key, asked)
    return asked
  }

  #count(name: string, by: 1 | -1): void {
    const count = (this.#counts.get(name) ?? 0) + by
    if (count === 0) this.#counts.delete(name)
    else this.#counts.set(name, count)
  }
}
