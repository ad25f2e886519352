import type { Did } from '../../src/atproto/syntax.ts'
import { Actors, type OpenActor } from '../../src/shard/actors.ts'
import { seedBoot } from '../kit/seed.ts'
import { serviceDid } from '../service/posts.ts'

/** Actors to whom something happens while somebody has their handle, but has not looked yet. */
export class ActorsBeside extends Actors {
  /** Gives the actor as whoever has the handle is to find it. */
  readonly #beside: (actor: OpenActor) => OpenActor

  constructor(dataDir: string, beside: (actor: OpenActor) => OpenActor) {
    super({ ...seedBoot(dataDir, serviceDid), onClosed: () => undefined })
    this.#beside = beside
  }

  override async use<Result>(
    did: Did,
    task: (actor: OpenActor) => Promise<Result>,
  ): Promise<Result> {
    return await super.use(did, (actor) => task(this.#beside(actor)))
  }
}
