/** Lets so many at once into each lane; whoever finds it full waits in line and is named later. */
export class Lanes<Name> {
  readonly #most: number
  readonly #lanes = new Map<string, { inside: number; readonly line: Name[] }>()

  constructor(most: number) {
    this.#most = most
  }

  /** Whether there was room; otherwise `name` is in the line now. */
  enter(lane: string, name: Name): boolean {
    const { inside, line } = this.#lanes.get(lane) ?? { inside: 0, line: [] }
    if (inside < this.#most) {
      this.#lanes.set(lane, { inside: inside + 1, line })
      return true
    }
    line.push(name)
    return false
  }

  /** Makes room. @returns who waited longest and may enter now, and has to do so anew */
  leave(lane: string): Name | undefined {
    const found = this.#lanes.get(lane)
    if (found === undefined) return undefined
    found.inside -= 1
    const next = found.line.shift()
    if (found.inside === 0 && next === undefined) this.#lanes.delete(lane)
    return next
  }
}
