import { overloaded, XrpcError } from '../atproto/errors.ts'
import { actorDatabasePath } from '../store/actor-database.ts'
import { ActorSnapshot } from '../store/actor-snapshot.ts'
import type { BulkBoot, ExportAsk } from './messages.ts'
import { repoCar } from './repo-car.ts'

/** Repos that are read as CARs. Their trees are in memory meanwhile, so all together are bounded. */
export class Exports {
  readonly #boot: Pick<BulkBoot, 'dataDir' | 'treeBytesMax'>
  #bytes = 0

  constructor(boot: Pick<BulkBoot, 'dataDir' | 'treeBytesMax'>) {
    this.#boot = boot
  }

  /** @throws XrpcError 503 Overloaded, 413 RepoTooLarge, before the first piece */
  async *pieces(ask: ExportAsk, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { did } = ask
    const { dataDir, treeBytesMax } = this.#boot
    await using snapshot = await ActorSnapshot.open(actorDatabasePath(dataDir, did), did)
    const records = snapshot.countRecords()
    const recordsMax = Math.floor((aloneTimes * treeBytesMax) / recordBytes)
    if (records > recordsMax) {
      const text = `a repo of more than ${recordsMax} records`
      throw new XrpcError(413, 'RepoTooLarge', `${text} cannot be exported`)
    }
    const bytes = records * recordBytes
    // A large one takes its turn when there is no other.
    if (this.#bytes > 0 && this.#bytes + bytes > treeBytesMax) {
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
/** One alone may take more than all that are sent side by side. */
const aloneTimes = 5
/** To go back through more takes longer than to send most repos as a whole. */
const changesMax = 20_000
