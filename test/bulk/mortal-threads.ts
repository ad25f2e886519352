/**
 * Loaded before a service under test: SIGUSR2 ends the newest of its threads, as a fault of the
 * runtime would.
 */
const threads: Worker[] = []

globalThis.Worker = class extends Worker {
  constructor(...parts: ConstructorParameters<typeof Worker>) {
    super(...parts)
    threads.push(this)
  }
}
process.on('SIGUSR2', () => threads.at(-1)?.terminate())
