import { assert } from '../lib/assert.ts'
import type { CidBytes } from './cid.ts'

/**
 * Where blocks start in a CAR, by the first bytes of their hashes: whether one is the block that is
 * meant, only the CAR can tell. A table with open addressing of eight bytes a slot, of which at
 * most three in four are taken, so that a block costs 11 to 22 bytes.
 *
 * Who makes a CAR can choose blocks whose hashes begin alike; where they fall is decided by a
 * random factor, and equal beginnings of 32 bits cost him billions of hashes each.
 */
export class BlockPlaces {
  /** Start of the hash and place; the place 0, where every CAR has its header, is an empty slot. */
  #slots = new Uint32Array(2 << slotBitsMin)
  #slotBits = slotBitsMin
  #count = 0
  readonly #factor = (crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) | 1

  get count(): number {
    return this.#count
  }

  /** The first place that is the one, of those whose hashes begin alike. */
  find(cid: CidBytes, isIt: (place: number) => boolean): number | undefined {
    const start = startOf(cid)
    for (let slot = this.#home(start); ; slot = this.#next(slot)) {
      const place = this.#slots[2 * slot + 1] ?? 0
      if (place === 0) return undefined
      if (this.#slots[2 * slot] === start && isIt(place)) return place
    }
  }

  add(cid: CidBytes, place: number): void {
    assert(place > 0 && place < 2 ** 32, 'a place has 32 bits')
    if (this.#count >= 0.75 * 2 ** this.#slotBits) this.#grow()
    this.#put(startOf(cid), place)
    this.#count += 1
  }

  #put(start: number, place: number): void {
    let slot = this.#home(start)
    while (this.#slots[2 * slot + 1] !== 0) slot = this.#next(slot)
    this.#slots[2 * slot] = start
    this.#slots[2 * slot + 1] = place
  }

  #grow(): void {
    const before = this.#slots
    this.#slotBits += 1
    this.#slots = new Uint32Array(2 << this.#slotBits)
    for (let at = 0; at < before.length; at += 2) {
      const place = before[at + 1] ?? 0
      if (place !== 0) this.#put(before[at] ?? 0, place)
    }
  }

  #home(start: number): number {
    return Math.imul(start, this.#factor) >>> (32 - this.#slotBits)
  }

  #next(slot: number): number {
    return (slot + 1) & (2 ** this.#slotBits - 1)
  }
}

const slotBitsMin = 6

/** The first four bytes of the hash, behind the four that all CIDs begin with. */
function startOf(cid: CidBytes): number {
  let start = 0
  for (let at = 4; at < 8; at++) start = (start << 8) | (cid[at] ?? 0)
  return start >>> 0
}
