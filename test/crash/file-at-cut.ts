import { unreachable } from '../../src/lib/assert.ts'
import type { Dice } from './dice.ts'

/** A write or a change of size, as it went to the system. */
export type Change = {
  /** Whether a sync that was done before the cut had been asked for after this. */
  readonly durable: boolean
} & (
  | { readonly kind: 'write'; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: 'resize'; readonly size: number }
  | { readonly kind: 'grow'; readonly size: number }
)

/**
 * What became of what was not synced: all of it lost, all of it there, each write whole or not at
 * all, or each sector for itself.
 */
export type Luck = 'none' | 'all' | 'writes' | 'sectors'

/** A disk writes so many bytes whole or not at all. */
const sectorBytes = 512

/**
 * A file as a disk may hold it after a power cut.
 *
 * - What is durable is there.
 * - Of each sector there is one of the versions that it had since, whatever the others have: pages
 *   go to disk in any order, and a write may be torn.
 * - Sizes change in order. A file that grew without its data has zeros there.
 * - After a truncation data goes to new blocks, which are not the file's unless the truncation is
 *   there, too.
 */
export function contentAtCut(base: Buffer, changes: readonly Change[], chance: Chance): Buffer {
  const firstLoose = changes.findIndex(({ durable }) => !durable)
  const content = new Content(base)
  const settled = firstLoose < 0 ? changes : changes.slice(0, firstLoose)
  for (const change of settled) content.apply(change)
  if (firstLoose < 0) return content.bytes()
  const loose = changes.slice(firstLoose)
  const sizes = sizesOf(content.size, loose)
  const taken = sizes.length === 0 ? 0 : chosen(leastOf(loose, sizes), sizes.length, chance)
  const size = taken === 0 ? content.size : (sizes[taken - 1]?.size ?? 0)
  const firstMissing = sizes.slice(taken).find(({ shrinks }) => shrinks)?.index ?? loose.length
  const sectors = new Sectors(content)
  for (const change of loose.slice(0, firstMissing)) sectors.apply(change, chance)
  return sectors.settle(chance).bytes(size)
}

export interface Chance {
  readonly dice: Dice
  readonly luck: Luck
}

/** How many of the versions beyond the first `least` there are, of `count`. */
function chosen(least: number, count: number, { dice, luck }: Chance): number {
  if (luck === 'none') return least
  return luck === 'all' ? count : dice.between(least, count)
}

interface Size {
  readonly index: number
  readonly size: number
  readonly shrinks: boolean
}

/** The sizes that a file goes through. */
function sizesOf(before: number, changes: readonly Change[]): Size[] {
  const sizes: Size[] = []
  let last = before
  for (const [index, change] of changes.entries()) {
    const size = sizeAfter(last, change)
    if (size !== last) sizes.push({ index, size, shrinks: size < last })
    last = size
  }
  return sizes
}

/** A durable change brings all sizes up to its own. */
function leastOf(changes: readonly Change[], sizes: readonly Size[]): number {
  const last = changes.findLastIndex(({ durable }) => durable)
  return sizes.filter(({ index }) => index <= last).length
}

function sizeAfter(size: number, change: Change): number {
  switch (change.kind) {
    case 'write':
      return Math.max(size, change.at + change.bytes.length)
    case 'resize':
      return change.size
    case 'grow':
      return Math.max(size, change.size)
    default:
      return unreachable(change)
  }
}

/** Bytes with room to grow; beyond the size there are zeros. */
class Content {
  size: number
  #bytes: Buffer

  constructor(base: Buffer) {
    this.size = base.length
    this.#bytes = Buffer.from(base)
  }

  apply(change: Change): void {
    const size = sizeAfter(this.size, change)
    this.#reserve(size)
    if (change.kind === 'write') change.bytes.copy(this.#bytes, change.at)
    if (size < this.size) this.#bytes.fill(0, size, this.size)
    this.size = size
  }

  /** @param size the rest is cut off, or zeros */
  bytes(size = this.size): Buffer {
    this.#reserve(size)
    return this.#bytes.subarray(0, size)
  }

  sector(index: number): Buffer {
    this.#reserve((index + 1) * sectorBytes)
    return this.#bytes.subarray(index * sectorBytes, (index + 1) * sectorBytes)
  }

  #reserve(size: number): void {
    if (size <= this.#bytes.length) return
    const more = Buffer.alloc(Math.max(size, this.#bytes.length * 2, 4096))
    this.#bytes.copy(more)
    this.#bytes = more
  }
}

/** The versions of each sector since it was durable. */
class Sectors {
  readonly #content: Content
  readonly #versions = new Map<number, Buffer[]>()

  constructor(content: Content) {
    this.#content = content
  }

  apply(change: Change, { dice, luck }: Chance): void {
    const before = this.#content.size
    if (change.kind !== 'write') {
      this.#content.apply(change)
      const { size } = this.#content
      if (size < before) this.#forgetFrom(size)
      return
    }
    const first = Math.floor(change.at / sectorBytes)
    const last = Math.floor((change.at + change.bytes.length - 1) / sectorBytes)
    const indexes = Array.from({ length: last - first + 1 }, (_, index) => first + index)
    for (const index of indexes) if (!this.#versions.has(index)) this.#keep(index)
    this.#content.apply(change)
    // A write that is there as a whole takes with it what was in its sectors before.
    const settles = change.durable || (luck === 'writes' && dice.oneIn(2))
    for (const index of indexes) {
      if (settles) this.#versions.set(index, [Buffer.from(this.#content.sector(index))])
      else this.#keep(index)
    }
  }

  settle({ dice, luck }: Chance): Content {
    for (const [index, versions] of this.#versions) {
      const one = luck === 'all' ? versions.at(-1) : versions[0]
      const version = luck === 'sectors' ? dice.one(versions) : one
      version?.copy(this.#content.sector(index))
    }
    return this.#content
  }

  #keep(index: number): void {
    const versions = this.#versions.get(index) ?? []
    versions.push(Buffer.from(this.#content.sector(index)))
    this.#versions.set(index, versions)
  }

  /** What was cut off is not there any more; the sector with the new end has a version more. */
  #forgetFrom(size: number): void {
    for (const index of this.#versions.keys()) {
      if (index * sectorBytes >= size) this.#versions.delete(index)
      else if ((index + 1) * sectorBytes > size) this.#versions.set(index, [])
    }
    const end = Math.floor(size / sectorBytes)
    if (size % sectorBytes > 0) this.#versions.set(end, [Buffer.from(this.#content.sector(end))])
  }
}
