/** Lets one task a key run at a time, in the order of arrival. Other keys are not held up. */
export class Turns<Key> {
  readonly #last = new Map<Key, Promise<unknown>>()

  async run<Result>(key: Key, task: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(key) ?? Promise.resolve()
    // The task starts when the one before it has ended, well or badly: its error is not ours.
    const mine = before.then(task, task)
    this.#last.set(key, mine)
    try {
      return await mine
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    }
  }
}
