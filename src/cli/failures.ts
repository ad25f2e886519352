/** The command was called wrongly: nothing was asked of the service. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** It did not work; the message says why and, where that helps, what to do. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed'
}
