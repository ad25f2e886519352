/** The command was called wrongly: nothing was asked of the service. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** It did not work; the message says why and, where that helps, what to do. */
export class CommandFailed extends Error {
  override readonly name = 'CommandFailed'
}

/** What was to be read could not be had, so that nothing can be said of it. */
export class InputFailed extends Error {
  override readonly name = 'InputFailed'
}
