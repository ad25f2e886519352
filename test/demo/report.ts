/** What the demo prints: headings, steps with their time, and statements that held or did not. */
export class Report {
  #failed = 0
  #held = 0
  readonly #startedAt = performance.now()

  get failed(): number {
    return this.#failed
  }

  heading(text: string): void {
    console.log(`\n${bold(text)}`)
  }

  say(text: string): void {
    console.log(indented(text, '  '))
  }

  /** Something to look at or to copy, set apart. */
  show(text: string): void {
    console.log(indented(text, '      '))
  }

  /** A piece of work, announced before it starts so that a slow one is no silence. */
  async step<T>(text: string, work: () => Promise<T>): Promise<T> {
    const startedAt = performance.now()
    process.stdout.write(`  ${text} ... `)
    const result = await work()
    console.log(`${secondsSince(startedAt)} s`)
    return result
  }

  /** @param evidence what was found, for when the statement does not hold */
  statement(text: string, holds: boolean, evidence: unknown): void {
    if (holds) {
      this.#held += 1
      console.log(`  ${green('ok')}    ${text}`)
      return
    }
    this.#failed += 1
    console.log(`  ${red('WRONG')} ${text}`)
    this.show(JSON.stringify(evidence, undefined, 2) ?? 'nothing was found')
  }

  total(): void {
    const verdict = this.#failed === 0 ? 'all of them hold' : `${this.#failed} do not hold`
    const count = this.#held + this.#failed
    this.heading(`${count} statements, ${verdict}; ${secondsSince(this.#startedAt)} s`)
  }
}

function secondsSince(startedAt: number): string {
  return ((performance.now() - startedAt) / 1000).toFixed(1)
}

function indented(text: string, by: string): string {
  return text.replaceAll(/^/gm, by)
}

const isTerminal = process.stdout.isTTY && process.env['NO_COLOR'] === undefined
const styled = (code: number) => (text: string) =>
  isTerminal ? `\u001B[${code}m${text}\u001B[0m` : text
const bold = styled(1)
const red = styled(31)
const green = styled(32)
