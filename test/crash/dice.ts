/** Chance that can be had again: the same seed gives the same numbers (mulberry32). */
export class Dice {
  readonly seed: number
  #state: number

  constructor(seed: number) {
    this.seed = seed
    this.#state = seed
  }

  /** A whole number of at least 0 and less than `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }

  /** Both ends included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  /** True once in so many times. */
  oneIn(times: number): boolean {
    return this.below(times) === 0
  }

  one<T>(choices: readonly T[]): T {
    const chosen = choices[this.below(choices.length)]
    if (chosen === undefined) throw new Error('there is nothing to choose from')
    return chosen
  }
}

/** Runs `task` with dice of the given seed, or of a new one, and names it when the task fails. */
export async function withDice<T>(task: (dice: Dice) => Promise<T>): Promise<T> {
  const seed = Number(process.env['STRATOS_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  try {
    return await task(new Dice(seed))
  } catch (error) {
    console.error(`failed with STRATOS_TEST_SEED=${seed}`)
    throw error
  }
}

/** How often something is done: fewer times in every run of the tests, more where that is asked. */
export function timesOf(variable: string, byDefault: number): number {
  return Number(process.env[variable] ?? byDefault)
}
