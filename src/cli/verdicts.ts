import { plain } from './table.ts'

/** What was checked, a line each, in plain words and with its verdict. */
export class Verdicts {
  readonly #print: (text: string) => void
  #held = 0
  #failed = 0

  constructor(print: (text: string) => void) {
    this.#print = print
  }

  /** Checks that have failed. */
  get failed(): number {
    return this.#failed
  }

  get count(): number {
    return this.#held + this.#failed
  }

  held(check: string, what: string): void {
    this.#held += 1
    this.#line('ok', check, what)
  }

  /** What was seen and is no matter of right or wrong. */
  note(check: string, what: string): void {
    this.#line('--', check, what)
  }

  /** Checks of which each needs the one before: the first that fails is told, and ends them. */
  async inTurn(checks: () => void | Promise<void>): Promise<void> {
    try {
      await checks()
    } catch (error) {
      if (!(error instanceof CheckFailed)) throw error
      this.#failed += 1
      this.#line('FAILED', error.check, error.message)
    }
  }

  #line(verdict: string, check: string, what: string): void {
    this.#print(`${verdict.padEnd(verdictWidth)}${plain(`${check}: ${what}`)}`)
  }
}

/** Something is not as it must be; the message says what was expected. */
export class CheckFailed extends Error {
  override readonly name = 'CheckFailed'
  readonly check: string

  constructor(check: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.check = check
  }
}

const verdictWidth = 8
