/**
 * How long to wait before the next try: doubling, capped, with jitter over the upper half so that
 * many waiting parties do not return at once.
 * @param random a number in [0, 1)
 */
export function backoffMs(input: {
  readonly attempt: number
  readonly firstMs: number
  readonly mostMs: number
  readonly random: number
}): number {
  const full = Math.min(input.mostMs, input.firstMs * 2 ** Math.min(input.attempt, 30))
  return Math.round(full / 2 + (full / 2) * input.random)
}
