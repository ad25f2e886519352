/** A place where something waits until it is let through, so that a test can act in between. */
export class Gate {
  readonly #reached = Promise.withResolvers<void>()
  readonly #open = Promise.withResolvers<void>()

  /** When somebody waits. */
  get reached(): Promise<void> {
    return this.#reached.promise
  }

  /** For whoever has to wait. */
  async pass(): Promise<void> {
    this.#reached.resolve()
    await this.#open.promise
  }

  open(): void {
    this.#open.resolve()
  }
}
