import { overloaded } from '../atproto/errors.ts'

interface Limits {
  readonly ofCallerMax: number
  readonly togetherMax: number
  /** What they are, to callers: "whole repos". */
  readonly what: string
}

/** Bounds what is sent in long streams: so many at once of a caller, and of all callers. */
export class Downloads {
  readonly #limits: Limits
  readonly #byCaller = new Map<string, number>()
  #count = 0

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /**
   * The stream that `make` opens, counted until it has ended. Where there is a time, it breaks off
   * for whoever has not taken all of it by then.
   * @throws XrpcError 503 while this caller, or all together, have as many as they may
   */
  async stream(
    caller: string,
    make: () => Promise<ReadableStream<Uint8Array>>,
    withinMs?: number,
  ): Promise<ReadableStream<Uint8Array>> {
    const { ofCallerMax, togetherMax, what } = this.#limits
    const own = this.#byCaller.get(caller) ?? 0
    if (own >= ofCallerMax) throw overloaded(`you are reading several ${what} already`)
    if (this.#count >= togetherMax) throw overloaded(`too many ${what} are being read, try again`)
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
      return releasing(await make(), release, withinMs)
    } catch (error) {
      release()
      throw error
    }
  }
}

function releasing(
  stream: ReadableStream<Uint8Array>,
  release: () => void,
  withinMs: number | undefined,
): ReadableStream<Uint8Array> {
  const reader = stream.getReader()
  let timer: ReturnType<typeof setTimeout> | undefined
  const end = (): void => {
    clearTimeout(timer)
    release()
  }
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => {
        if (withinMs === undefined) return
        timer = setTimeout(() => {
          controller.error(new Error(`not all of it was taken within ${withinMs} ms`))
          release()
          void reader.cancel()
        }, withinMs)
      },
      pull: async (controller) => {
        try {
          const { value, done } = await reader.read()
          if (!done) return controller.enqueue(value)
          controller.close()
        } catch (error) {
          controller.error(error)
        }
        end()
      },
      cancel: async (reason) => {
        end()
        await reader.cancel(reason)
      },
    },
    { highWaterMark: 0 },
  )
}
