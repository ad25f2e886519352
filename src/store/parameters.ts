import type { SqlValue } from './sql.ts'

/**
 * Any number of values as parameters, numbered from `first`. Of more than a few the last is repeated
 * until there are as many as a power of two: statements are kept by their text, and this keeps their
 * texts few.
 */
export function parametersFor(
  values: readonly SqlValue[],
  first: number,
): { readonly places: readonly string[]; readonly args: readonly SqlValue[] } {
  const isFew = values.length <= fewMax
  const count = isFew ? values.length : 2 ** Math.ceil(Math.log2(values.length))
  const last = values.at(-1) ?? null
  const args = [...values, ...Array.from({ length: count - values.length }, () => last)]
  return { places: args.map((_, index) => `$${first + index}`), args }
}

const fewMax = 8
