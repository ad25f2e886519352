/** Whether an operation on files failed with one of `codes`. */
export function failedWith(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.some((code) => code === error.code)
}

/** The names on the way are missing, or longer than any name can be. */
export function isAbsent(error: unknown): boolean {
  return failedWith(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')
}

/** For `catch`: what is not there is no failure. */
export function ignoreAbsent(error: unknown): undefined {
  if (!isAbsent(error)) throw error
}
