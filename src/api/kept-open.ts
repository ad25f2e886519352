interface Server {
  /** Closes the connection of a request after so many seconds without traffic; 0 is never. */
  timeout(request: Request, seconds: number): void
}

/**
 * The result of `task`, which may keep the connection of `request` open for as long as it takes.
 * After that the connection is like any other: whoever called once must not hold it for ever.
 */
export async function keptOpen<Result>(
  request: Request,
  { server, idleSeconds }: { readonly server: Server | null; readonly idleSeconds: number },
  task: (keepOpen: () => void) => Promise<Result>,
): Promise<Result> {
  let isKept = false
  try {
    return await task(() => {
      isKept = true
      server?.timeout(request, 0)
    })
  } finally {
    if (isKept) server?.timeout(request, idleSeconds)
  }
}
