import { overloaded, XrpcError } from '../atproto/errors.ts'
import { actorDatabasePath } from '../store/actor-database.ts'
import { ActorSnapshot } from '../store/actor-snapshot.ts'
import type { ExportAsk } from './messages.ts'
import { repoCar } from './repo-car.ts'

/** Repos that are read as CARs. Their trees are in memory meanwhile, so all together are bounded. */
export class Exports {
  readonly #dataDir: string
  #bytes = 0

  constructor(dataDir: string) {
    this.#dataDir = dataDir
  }

  /** @throws XrpcError 503 Overloaded, 413 RepoTooLarge, before the first piece */
  async *pieces(ask: ExportAsk, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { did } = ask
    await using snapshot = await ActorSnapshot.open(actorDatabasePath(this.#dataDir, did), did)
    const bytes = snapshot.countRecords() * recordBytes
    if (bytes > aloneBytesMax) {
      const text = `a repo of more than ${Math.floor(aloneBytesMax / recordBytes)} records`
      throw new XrpcError(413, 'RepoTooLarge', `${text} cannot be exported`)
    }
    // A large one takes its turn when there is no other.
    if (this.#bytes > 0 && this.#bytes + bytes > togetherBytesMax) {
      throw overloaded('too many large repos are being exported, try again')
    }
    this.#bytes += bytes
    try {
      yield* repoCar(snapshot, { ...ask, changesMax }, signal)
    } finally {
      this.#bytes -= bytes
    }
  }
}

/** Heap that a tree takes for each record, measured over 100,000 of them. */
const recordBytes = 330
const togetherBytesMax = 64 * 1024 * 1024
const aloneBytesMax = 5 * togetherBytesMax
/** To go back through more takes longer than to send most repos as a whole. */
const changesMax = 20_000
