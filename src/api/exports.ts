import { overloaded } from '../atproto/errors.ts'

/** Bounds what is sent in long streams: so many at once of a caller, and of all callers. */
export class Exports {
  readonly #byCaller = new Map<string, number>()
  #count = 0

  /**
   * The stream that `make` opens, counted until it has ended.
   * @throws XrpcError 503 while this caller, or all together, have as many as they may
   */
  async stream(
    caller: string,
    make: () => Promise<ReadableStream<Uint8Array>>,
  ): Promise<ReadableStream<Uint8Array>> {
    const own = this.#byCaller.get(caller) ?? 0
    if (own >= ofCallerMax) throw overloaded('you are reading several whole repos already')
    if (this.#count >= togetherMax) throw overloaded('too many exports at once, try again')
    this.#byCaller.set(caller, own + 1)
    this.#count += 1
    let held = true
    const release = (): void => {
      // A stream may end and be cancelled, too; only the first counts.
      if (!held) return
      held = false
      this.#count -= 1
      const left = (this.#byCaller.get(caller) ?? 1) - 1
      if (left === 0) this.#byCaller.delete(caller)
      else this.#byCaller.set(caller, left)
    }
    try {
      return releasing(await make(), release)
    } catch (error) {
      release()
      throw error
    }
  }
}

const ofCallerMax = 3
const togetherMax = 12

function releasing(
  stream: ReadableStream<Uint8Array>,
  release: () => void,
): ReadableStream<Uint8Array> {
  const reader = stream.getReader()
  return new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        try {
          const { value, done } = await reader.read()
          if (!done) return controller.enqueue(value)
          controller.close()
        } catch (error) {
          controller.error(error)
        }
        release()
      },
      cancel: async (reason) => {
        release()
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}
