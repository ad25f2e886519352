import { setImmediate, setTimeout } from 'node:timers/promises'

/**
 * Lets other work of this thread go first, between the steps of a long task.
 * @throws the reason of an aborted `signal`
 */
export async function pause(signal: AbortSignal): Promise<void> {
  await setImmediate()
  signal.throwIfAborted()
}

/** @throws AbortError as soon as `signal` is aborted */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await setTimeout(ms, undefined, { signal })
}
