import { print } from './report.ts'

/** Of one load: the same figure of two servers, round for round. */
export interface Paired {
  readonly name: string
  readonly left: readonly number[]
  readonly right: readonly number[]
  /** What is to be said of the ratio besides. */
  readonly note?: string
}

/**
 * Prints the medians, and how many times more the first one is. Rounds are compared each for
 * itself, so that what slows the machine down for a while slows both down; the spread is from the
 * least of these ratios to the largest.
 */
export function printRatios(
  [left, right]: readonly [string, string],
  loads: readonly Paired[],
): void {
  print(`\n${'median of rounds'.padEnd(34)}${left.padStart(20)}${right.padStart(14)}   ratio`)
  for (const load of loads) {
    const { middle, least, most } = ratioOf(load)
    const figure = (values: readonly number[]) => short(median(values)).padStart(14)
    const spread = `${middle.toFixed(2)}x (${least.toFixed(2)} to ${most.toFixed(2)})`
    const note = load.note === undefined ? '' : `   ${load.note}`
    print(`${load.name.padEnd(40)}${figure(load.left)}${figure(load.right)}   ${spread}${note}`)
  }
}

export function ratioOf({ left, right }: Pick<Paired, 'left' | 'right'>): {
  readonly middle: number
  readonly least: number
  readonly most: number
} {
  const ratios = left.map((value, round) => value / (right[round] ?? Number.NaN))
  return { middle: median(ratios), least: Math.min(...ratios), most: Math.max(...ratios) }
}

/** Three digits, and never less than all before the point. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = Math.floor(sorted.length / 2)
  const [low = Number.NaN, high = low] = sorted.slice(sorted.length % 2 === 0 ? half - 1 : half)
  return sorted.length % 2 === 0 ? (low + high) / 2 : low
}
