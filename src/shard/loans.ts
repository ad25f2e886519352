import { XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Turns } from '../lib/turns.ts'
import type { ActorAnswers } from '../service/calls.ts'
import type { Actors } from './actors.ts'
import type { Events } from './events.ts'
import type { Repos } from './repos.ts'

interface Loan {
  /** Ends it. */
  readonly giveBack: () => void
  /** Settles when the turn of the actor has ended, too. */
  readonly over: Promise<void>
}

/**
 * Repos that another thread fills. For so long it has the actor's turn, so that no write is decided
 * on, and the actor's database stays open here, for readers.
 */
export class Loans {
  readonly #actors: Actors
  readonly #repos: Repos
  readonly #turns: Turns<Did>
  readonly #events: Events
  readonly #loans = new Map<Did, Loan>()

  constructor(
    actors: Actors,
    repos: Repos,
    { turns, events }: { readonly turns: Turns<Did>; readonly events: Events },
  ) {
    this.#actors = actors
    this.#repos = repos
    this.#turns = turns
    this.#events = events
  }

  /** @throws XrpcError 409 RepoAlreadyExists where there are records */
  async lend(did: Did): Promise<ActorAnswers['lend']> {
    const begun = Promise.withResolvers<ActorAnswers['lend']>()
    const back = Promise.withResolvers<void>()
    const over = this.#turns.run(did, () =>
      this.#actors.use(did, async (actor) => {
        if (await actor.store.hasRecords()) throw repoAlreadyExists()
        const giveBack = actor.behind.lend()
        begun.resolve({ head: actor.head, vouched: this.#events.vouched })
        try {
          await back.promise
          await this.#repos.reload(actor)
          this.#events.grew(did, actor.head.seq)
        } finally {
          giveBack()
        }
      }),
    )
    over.catch(begun.reject)
    const lent = await begun.promise
    assert(!this.#loans.has(did), 'a repo is lent once at a time')
    this.#loans.set(did, { giveBack: back.resolve, over })
    return lent
  }

  async giveBack(did: Did): Promise<ActorAnswers['return']> {
    const loan = this.#loans.get(did)
    assert(loan !== undefined, 'a repo that is given back was lent')
    this.#loans.delete(did)
    loan.giveBack()
    await loan.over
    return {}
  }
}

function repoAlreadyExists(): XrpcError {
  const message = 'an import needs a repo without records, and here are some'
  return new XrpcError(409, 'RepoAlreadyExists', message)
}
