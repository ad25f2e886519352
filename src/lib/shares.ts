import { assert } from './assert.ts'

/** Lets each owner have so many tasks under way at once, and all owners together so many. */
export class Shares<Owner> {
  readonly #options: SharesOptions
  readonly #byOwner = new Map<Owner, number>()
  #count = 0

  constructor(options: SharesOptions) {
    this.#options = options
  }

  /**
   * Runs the task, or never begins it.
   * @param owner undefined for what is nobody's, and counts among all alone
   * @throws what `refusal` makes
   */
  async run<Result>(owner: Owner | undefined, task: () => Promise<Result>): Promise<Result> {
    const { ofOneMax, togetherMax, refusal } = this.#options
    if (owner !== undefined && (this.#byOwner.get(owner) ?? 0) >= ofOneMax) throw refusal('own')
    if (this.#count >= togetherMax) throw refusal('all')
    this.#add(owner, 1)
    try {
      return await task()
    } finally {
      this.#add(owner, -1)
    }
  }

  #add(owner: Owner | undefined, change: 1 | -1): void {
    this.#count += change
    if (owner === undefined) return
    const own = (this.#byOwner.get(owner) ?? 0) + change
    assert(own >= 0, 'nobody has less than nothing under way')
    if (own === 0) this.#byOwner.delete(owner)
    else this.#byOwner.set(owner, own)
  }
}

interface SharesOptions {
  readonly ofOneMax: number
  readonly togetherMax: number
  /** For whom it is too much: this owner has enough, or all have. */
  readonly refusal: (whose: 'own' | 'all') => Error
}
