import type { SqlValue } from './sql.ts'

/** Values, or rows of them, as parameters. */
interface Parameters {
  readonly places: readonly string[]
  readonly args: readonly SqlValue[]
}

/** Any number of values as parameters, numbered from `first`. */
export function parametersFor(values: readonly SqlValue[], first: number): Parameters {
  const args = padded(values)
  return { places: args.map((_, index) => `$${first + index}`), args }
}

/** The same of pairs: their places are `($1, $2)`. */
export function pairsFor(
  pairs: readonly (readonly [SqlValue, SqlValue])[],
  first: number,
): Parameters {
  const all = padded(pairs)
  const places = all.map((_, index) => `($${first + 2 * index}, $${first + 2 * index + 1})`)
  return { places, args: all.flat() }
}

/**
 * Of more than a few the last is repeated until there are as many as a power of two: statements are
 * kept by their text, and this keeps their texts few.
 */
function padded<Value>(values: readonly Value[]): readonly Value[] {
  const last = values.at(-1)
  if (last === undefined || values.length <= fewMax) return values
  const count = 2 ** Math.ceil(Math.log2(values.length))
  return [...values, ...Array.from({ length: count - values.length }, () => last)]
}

const fewMax = 8
