import { overloaded, XrpcError } from '../atproto/errors.ts'
import { actorDatabasePath } from '../store/actor-database.ts'
import { pause } from '../lib/pause.ts'
import { ActorSnapshot } from '../store/actor-snapshot.ts'
import type { BulkBoot, ExportAsk } from './messages.ts'
import { repoCar } from './repo-car.ts'

/** Repos that are read as CARs. Their trees are in memory meanwhile, so all together are bounded. */
export class Exports {
  readonly #boot: Pick<BulkBoot, 'dataDir' | 'treeBytesMax'>
  readonly #collect: () => void
  #bytes = 0
  #rests = 0

  /** @param collect what rows leave behind, where the thread may stand still for that */
  constructor(boot: Pick<BulkBoot, 'dataDir' | 'treeBytesMax'>, collect: () => void) {
    this.#boot = boot
    this.#collect = collect
  }

  /** @throws XrpcError 503 Overloaded, 413 RepoTooLarge, before the first piece */
  async *pieces(ask: ExportAsk, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const { dataDir } = this.#boot
    const path = actorDatabasePath(dataDir, ask.did)
    await using snapshot = await ActorSnapshot.open(path, ask.did)
    let held = 0
    const hold = (bytes: number): void => {
      this.#check(bytes, this.#bytes - held)
      this.#bytes += bytes - held
      held = bytes
    }
    const rest = async (): Promise<void> => {
      if (++this.#rests % restsOfCollection === 0) this.#collect()
      await pause(signal)
    }
    try {
      yield* repoCar(snapshot, { ...ask, changesMax, hold, rest })
    } finally {
      this.#bytes -= held
    }
  }

  #check(bytes: number, ofOthers: number): void {
    const { treeBytesMax } = this.#boot
    if (bytes > aloneTimes * treeBytesMax) {
      throw new XrpcError(413, 'RepoTooLarge', 'this repo has more records than can be exported')
    }
    // A large one takes its turn when there is no other.
    if (ofOthers > 0 && ofOthers + bytes > treeBytesMax) {
      throw overloaded('too many large repos are being exported, try again')
    }
  }
}

/** One alone may take more than all that are sent side by side: some two million records. */
const aloneTimes = 5
/** So many leave some 10 MB of garbage, which a collector left alone lets become 40. */
const restsOfCollection = 8
/** To go back through more takes longer than to send most repos as a whole. */
const changesMax = 20_000
