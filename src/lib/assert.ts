/** Ends the request or the process when an invariant of ours does not hold: a bug, never bad input. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message)
}

/** The last branch of a switch over a union: adding a member without a branch fails to compile. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`)
}

class AssertionError extends Error {
  override readonly name = 'AssertionError'
}
