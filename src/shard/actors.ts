import { existsSync } from 'node:fs'
import { decode } from '../atproto/cbor.ts'
import { overloaded, XrpcError } from '../atproto/errors.ts'
import { SigningKey } from '../atproto/keys.ts'
import type { Did } from '../atproto/syntax.ts'
import { makeFolder, syncFolder, writeDurably } from '../lib/files.ts'
import { distinctCids, namedBlobs } from '../service/blob.ts'
import { linksOf } from '../service/targets.ts'
import type { ActorAnswers } from '../service/calls.ts'
import type { Head } from '../store/actor-change.ts'
import { ActorStore } from '../store/actor.ts'
import { actorFolder, removeActorFolder } from '../store/actor-folder.ts'
import { actorKeyPath, readActorKey } from '../store/actor-key.ts'
import {
  type ActorDatabaseOptions,
  actorDatabasePath,
  openActorDatabase,
} from '../store/actor-database.ts'
import type { Behind } from '../store/behind.ts'

/** An actor whose database is open. The head is current: its shard is the only writer. */
export interface OpenActor {
  readonly did: Did
  readonly store: ActorStore
  /** The database below `store`, to which its journal brings Changes. */
  readonly behind: Behind
  readonly key: SigningKey
  head: Head
}

interface Options extends ActorDatabaseOptions {
  /** Open databases at most; one in use is never closed. */
  readonly handlesMax: number
  /** Learns whose database was closed to make room for another. */
  readonly onClosed: (did: Did) => void
}

interface Entry {
  readonly actor: Promise<OpenActor>
  /** What `actor` resolved to. */
  opened?: OpenActor
  leases: number
  /** Called when nobody uses it any more. */
  idle?: () => void
}

/** The open actors of one shard: least recently used ones are closed to make room. */
export class Actors {
  readonly #options: Options
  /** In the order of last use. */
  readonly #open = new Map<Did, Entry>()
  /** Open ones, and those that are being closed to make room for another. */
  #handles = 0
  /** Whose repos are closed for good, or until they stay after all. */
  readonly #leaving = new Set<Did>()
  /** Requests that wait for a handle, in order. */
  readonly #waiting: ((found: 'free' | 'late') => void)[] = []

  constructor(options: Options) {
    this.#options = options
  }

  /**
   * Runs `task` on an actor that has a repo; the handle stays open until the task ends.
   * @throws XrpcError 404 RepoNotFound, or 503 when all handles stay in use for too long
   */
  async use<Result>(did: Did, task: (actor: OpenActor) => Promise<Result>): Promise<Result> {
    const entry = await this.#lease(did, () => !this.#leaving.has(did))
    return await this.#used(entry, task)
  }

  async #used<Result>(entry: Entry, task: (actor: OpenActor) => Promise<Result>): Promise<Result> {
    try {
      return await task(await entry.actor)
    } finally {
      entry.leases -= 1
      if (entry.leases === 0) {
        entry.idle?.()
        this.#waiting.shift()?.('free')
      }
    }
  }

  /**
   * Closes the repo to everybody and gives what its owner's departure has to know. To be called in
   * the actor's turn, so that no write is under way.
   */
  async leave(did: Did): Promise<ActorAnswers['leave']> {
    this.#leaving.add(did)
    try {
      const entry = await this.#lease(did, () => true)
      return await this.#used(entry, async ({ head, store }) => {
        const budget = await store.outbox.budget()
        return {
          numbers: { seq: head.seq, rev: head.rev },
          keys: await store.outbox.places(),
          ...(budget === undefined ? {} : { budget }),
        }
      })
    } catch (error) {
      this.#leaving.delete(did)
      throw error
    }
  }

  stay(did: Did): void {
    this.#leaving.delete(did)
  }

  /** Removes data and key, once nobody uses them any more. What is gone already is no error. */
  async erase(did: Did): Promise<void> {
    this.#leaving.add(did)
    const entry = this.#open.get(did)
    if (entry !== undefined) {
      entry.opened?.behind.drop()
      await this.#close(did, entry)
    }
    removeActorFolder(this.#options.dataDir, did)
    this.#leaving.delete(did)
  }

  async #close(did: Did, entry: Entry): Promise<void> {
    if (entry.leases > 0) {
      const { promise, resolve } = Promise.withResolvers<void>()
      entry.idle = resolve
      await promise
    }
    // One that could not be opened has left the map by itself.
    if (this.#open.get(did) !== entry) return
    this.#open.delete(did)
    try {
      await (await entry.actor).store.close()
    } finally {
      this.#giveBack()
    }
  }

  /** The actor's signing key, made and brought to disk at first. */
  signingKey(did: Did): SigningKey {
    const { dataDir } = this.#options
    const path = actorKeyPath(dataDir, did)
    if (!existsSync(path)) {
      // With another key every commit that is there would stop verifying, for good.
      if (existsSync(actorDatabasePath(dataDir, did))) {
        throw new Error(`the key file of ${did} is gone: restore ${path} from a backup`)
      }
      makeFolder(actorFolder(dataDir, did))
      writeDurably(path, SigningKey.generate().exportHex(), 0o600)
    }
    return readActorKey(dataDir, did)
  }

  /** Opens an actor's database, made and migrated at first, for the commit that starts a repo. */
  async create(did: Did, start: (store: ActorStore, key: SigningKey) => Promise<void>) {
    const key = this.signingKey(did)
    const folder = actorFolder(this.#options.dataDir, did)
    const behind = await openActorDatabase(did, this.#options)
    try {
      syncFolder(folder)
      const store = new ActorStore(behind, did)
      if ((await store.head()) === undefined) await start(store, key)
    } finally {
      await behind.close()
    }
  }

  async close(): Promise<void> {
    const closing = [...this.#open.values()].map(async ({ actor }) => (await actor).store.close())
    // What a database lacks is in the journal, which says so.
    await Promise.allSettled(closing)
    this.#open.clear()
    this.#handles = 0
  }

  async #lease(did: Did, isOpen: () => boolean): Promise<Entry> {
    const waitUntilMs = Date.now() + handleWaitMs
    for (;;) {
      if (!isOpen()) throw repoNotFound(did)
      const present = this.#open.get(did)
      if (present !== undefined) {
        this.#open.delete(did)
        this.#open.set(did, present)
        present.leases += 1
        return present
      }
      if (this.#handles < this.#options.handlesMax) this.#handles += 1
      else if (!(await this.#closeOldest())) {
        await this.#handleFree(waitUntilMs)
        continue
      }
      // One handle is ours by now, but another request may have opened the actor meanwhile.
      if (this.#open.has(did)) {
        this.#giveBack()
        continue
      }
      const entry: Entry = { actor: this.#load(did), leases: 1 }
      this.#open.set(did, entry)
      entry.actor.then(
        (actor) => (entry.opened = actor),
        () => {
          if (this.#open.get(did) === entry) this.#open.delete(did)
          this.#giveBack()
        },
      )
      return entry
    }
  }

  #giveBack(): void {
    this.#handles -= 1
    this.#waiting.shift()?.('free')
  }

  /**
   * Closes the least recently used actor that nobody uses; says whether there was one. Its handle
   * passes to the caller, so that nobody else takes the room while it is being closed. One whose
   * database lags and cannot catch up is kept: what it lacks would be missed by its next reader.
   */
  async #closeOldest(): Promise<boolean> {
    for (const [did, entry] of this.#open) {
      if (entry.leases > 0 || !caughtUp(entry)) continue
      this.#open.delete(did)
      try {
        await (await entry.actor).store.close()
      } catch (error) {
        this.#giveBack()
        throw error
      }
      this.#options.onClosed(did)
      return true
    }
    return false
  }

  async #handleFree(waitUntilMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<'free' | 'late'>()
    this.#waiting.push(resolve)
    const timer = setTimeout(
      () => {
        // Out of the line first: a handle that comes free later is for somebody who still waits.
        const index = this.#waiting.indexOf(resolve)
        if (index >= 0) this.#waiting.splice(index, 1)
        resolve('late')
      },
      Math.max(0, waitUntilMs - Date.now()),
    )
    const found = await promise
    clearTimeout(timer)
    if (found === 'late') throw overloaded('all actor databases are in use, try again')
  }

  async #load(did: Did): Promise<OpenActor> {
    const { dataDir } = this.#options
    if (!existsSync(actorDatabasePath(dataDir, did))) throw repoNotFound(did)
    const key = readActorKey(dataDir, did)
    const behind = await openActorDatabase(did, this.#options)
    const store = new ActorStore(behind, did)
    try {
      const head = await store.head()
      if (head === undefined) throw repoNotFound(did)
      const { commit: _, ...rest } = head
      await doDue(store)
      return { did, store, behind, key, head: rest }
    } catch (error) {
      await store.close()
      throw error
    }
  }
}

/** Databases of before there were such rows have none for what was written then. */
async function doDue(store: ActorStore): Promise<void> {
  const due = await store.due()
  if (due.includes('backlinks')) {
    const records = await store.blocks()
    await store.relink(
      records.map(({ uri, content }) => ({ uri, links: linksOf(decode(content)) })),
    )
  }
  if (due.includes('record-blobs')) {
    // A record without the word is not looked at: most repos have many, and none that names a blob.
    const records = await store.blocksWith(Buffer.from('blob'))
    const blobsOf = (content: Uint8Array) => distinctCids(namedBlobs(decode(content)))
    await store.nameBlobs(records.map(({ uri, content }) => ({ uri, blobs: blobsOf(content) })))
  }
}

const handleWaitMs = 5_000

function caughtUp({ opened }: Entry): boolean {
  try {
    opened?.behind.settle()
    return true
  } catch {
    // Who next reads or writes there is told, and it is logged.
    return false
  }
}

function repoNotFound(did: Did): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${did} has no repo on this service`)
}
