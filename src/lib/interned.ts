/** Texts of which equal ones are one, for caches that else hold the same text over and over. */
export class Interned {
  readonly #texts = new Map<string, string>()
  readonly #countMax: number

  /** @param countMax beyond it all are forgotten: those in use stay with who uses them */
  constructor(countMax: number) {
    this.#countMax = countMax
  }

  one(text: string): string {
    const kept = this.#texts.get(text)
    if (kept !== undefined) return kept
    if (this.#texts.size >= this.#countMax) this.#texts.clear()
    this.#texts.set(text, text)
    return text
  }
}
