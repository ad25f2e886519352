import type { Did } from '../atproto/syntax.ts'
import type { EventPush } from '../shard/messages.ts'
import type { Pushed } from '../shard/pool.ts'

/** What happened to one actor, with its frame where it has one. */
export interface Happened {
  readonly did: Did
  /** Seq of the event before; -1 where the log has to be looked at. */
  readonly prev: number
  readonly seq: number
  readonly isWhole: boolean
  readonly frame: Uint8Array
}

export interface Follower {
  happened(event: Happened): void
  /** What happened at once was told: it can be sent on. */
  flush(): void
}

/** Hands what the shards store to those who follow, as long as there is anybody. */
export class Following {
  readonly #follow: (pushed: Pushed | undefined) => void
  readonly #ofActor = new Map<Did, Set<Follower>>()
  readonly #ofAll = new Set<Follower>()

  constructor(follow: (pushed: Pushed | undefined) => void) {
    this.#follow = follow
  }

  /** From now on: what was stored before stands in the log. */
  add(follower: Follower, did: Did | 'all'): void {
    if (this.#isEmpty) this.#follow((push, bytes) => this.#pushed(push, bytes))
    if (did === 'all') this.#ofAll.add(follower)
    else {
      const others = this.#ofActor.get(did) ?? new Set()
      others.add(follower)
      this.#ofActor.set(did, others)
    }
  }

  remove(follower: Follower, did: Did | 'all'): void {
    if (did === 'all') this.#ofAll.delete(follower)
    else {
      const others = this.#ofActor.get(did)
      others?.delete(follower)
      if (others?.size === 0) this.#ofActor.delete(did)
    }
    if (this.#isEmpty) this.#follow(undefined)
  }

  get #isEmpty(): boolean {
    return this.#ofActor.size === 0 && this.#ofAll.size === 0
  }

  #pushed({ events }: EventPush, bytes: Uint8Array): void {
    const touched = new Set<Follower>(this.#ofAll)
    let at = 0
    for (const { length, ...event } of events) {
      const happened = { ...event, frame: bytes.subarray(at, (at += length)) }
      for (const follower of this.#ofAll) follower.happened(happened)
      for (const follower of this.#ofActor.get(event.did) ?? []) {
        follower.happened(happened)
        touched.add(follower)
      }
    }
    for (const follower of touched) follower.flush()
  }
}
