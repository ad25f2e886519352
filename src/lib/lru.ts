/**
 * A map that forgets what was used least recently once the sizes of its entries pass a bound.
 * The newest entry is always kept, also when it is larger than the bound.
 */
export class Lru<Key, Value> {
  readonly #entries = new Map<Key, { readonly value: Value; readonly size: number }>()
  readonly #sizeMax: number
  #size = 0

  /** @param sizeMax in the unit of the sizes given to `set`: entries (size 1) or bytes */
  constructor(sizeMax: number) {
    this.#sizeMax = sizeMax
  }

  get(key: Key): Value | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    return entry.value
  }

  /** As `get`, but no use of it. */
  peek(key: Key): Value | undefined {
    return this.#entries.get(key)?.value
  }

  set(key: Key, value: Value, size = 1): void {
    this.delete(key)
    this.#entries.set(key, { value, size })
    this.#size += size
    for (const oldest of this.#entries.keys()) {
      if (this.#size <= this.#sizeMax || this.#entries.size === 1) break
      this.delete(oldest)
    }
  }

  delete(key: Key): void {
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    this.#entries.delete(key)
    this.#size -= entry.size
  }
}
