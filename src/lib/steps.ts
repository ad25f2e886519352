/**
 * The result of work that pauses now and then for the sake of others, for a caller who has nobody
 * to be kind to.
 */
export function runSteps<Result>(steps: Iterator<unknown, Result>): Result {
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
  }
}
