import { overloaded } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { exportBytesMax } from '../service/calls.ts'

/** Whole repos that were read and not yet sent, bounded: a client may take its time. */
export class Exports {
  readonly #sending = new Set<Did>()
  #bytes = 0

  /**
   * The bytes of `make`, in pieces, as fast as the client takes them.
   * @throws XrpcError 503 while another export of this repo, or too many in all, are being sent
   */
  async stream(
    did: Did,
    make: () => Promise<Uint8Array<ArrayBuffer>>,
  ): Promise<ReadableStream<Uint8Array>> {
    if (this.#sending.has(did)) throw overloaded('this repo is being exported already, try again')
    if (this.#bytes + exportBytesMax > sendingBytesMax)
      throw overloaded('too many exports at once, try again')
    this.#sending.add(did)
    // Room for the largest is taken before it is known how large this one is.
    this.#bytes += exportBytesMax
    let bytes: Uint8Array<ArrayBuffer>
    try {
      bytes = await make()
    } catch (error) {
      this.#sending.delete(did)
      throw error
    } finally {
      this.#bytes -= exportBytesMax
    }
    const { length } = bytes
    this.#bytes += length
    let held = true
    const release = (): void => {
      // A stream may end and be cancelled, too; only the first counts.
      if (!held) return
      held = false
      this.#sending.delete(did)
      this.#bytes -= length
    }
    return pieces(bytes, release)
  }
}

/** Bytes of all exports that are being read or sent. */
const sendingBytesMax = 3 * exportBytesMax
const pieceBytes = 256 * 1024

function pieces(bytes: Uint8Array<ArrayBuffer>, release: () => void): ReadableStream<Uint8Array> {
  let sent = 0
  return new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const piece = bytes.subarray(sent, sent + pieceBytes)
      sent += piece.length
      if (piece.length > 0) controller.enqueue(piece)
      if (sent < bytes.length) return
      controller.close()
      release()
    },
    cancel: release,
  })
}
