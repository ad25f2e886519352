import { unlinkSync } from 'node:fs'
import { join } from 'node:path'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { makeFolder, syncFolder } from '../lib/files.ts'
import type { Log } from '../lib/log.ts'
import type { Change } from './actor-change.ts'
import type { Behind } from './behind.ts'
import { changesText, joined } from './change-text.ts'
import { JournalFile } from './journal-file.ts'
import type { Synchronous } from './sqlite.ts'

interface Options {
  readonly dataDir: string
  /** Of the shard: no two journals of a data folder have the same. */
  readonly name: string
  readonly synchronous: Synchronous
  readonly log: Log
  /** Of each of its two files. */
  readonly journalBytes: number
}

interface Waiting {
  readonly behind: Behind
  readonly text: string
  readonly count: number
  readonly stored: () => void
  readonly failed: (error: unknown) => void
}

/** One of the two files, and the databases that rely on what is in it. */
interface Half {
  readonly file: JournalFile
  readonly path: string
  readonly relying: Map<Did, Behind>
}

/**
 * The Changes of one shard: all that its actors decide in a tick are written to one file with one
 * wait for the disk, and are acknowledged then. The actors' databases follow behind.
 *
 * Invariants:
 * - A Change is in the journal until its database has it on disk: the two files take turns, and
 *   before one is written anew every database that relies on it is brought to disk.
 * - What `store` has not acknowledged is in no database.
 * - What is left when the process ends is stored at the next start, see `recover`.
 */
export class Journal {
  readonly #options: Options
  /** Characters of one frame. */
  readonly #textMax: number
  readonly #halves: readonly [Half, Half]
  #current: Half
  #order = 1
  #waiting: Waiting[] = []
  /** Databases that lag, by the time of the first Change that they lack. */
  readonly #lagging = new Map<Did, { readonly behind: Behind; readonly sinceMs: number }>()
  #lastTickMs = 0
  #pausedUntilMs = 0
  #closed = false
  #lost = false
  readonly #timer: ReturnType<typeof setInterval>

  /** Makes the files at their full size. */
  constructor(options: Options) {
    this.#options = options
    this.#textMax = Math.min(textMax, options.journalBytes * textShare)
    makeFolder(journalFolder(options.dataDir))
    this.#halves = [this.#half('a'), this.#half('b')]
    this.#current = this.#halves[0]
    this.#current.file.begin(this.#order)
    this.#timer = setInterval(() => this.#rest(), restEveryMs)
    this.#timer.unref()
  }

  #half(letter: string): Half {
    const { dataDir, name, journalBytes } = this.#options
    const path = join(journalFolder(dataDir), `${name}.${letter}`)
    return { file: new JournalFile(path, journalBytes), path, relying: new Map() }
  }

  /** The Changes are durable when this resolves, and `behind` has them for all who ask it. */
  async store(behind: Behind, changes: readonly Change[]): Promise<void> {
    if (this.#lost) throw new Error('the journal cannot be written: see the log, then start anew')
    // Nothing is added to what cannot be stored.
    if (!behind.isSound || behind.waiting >= waitingMax) behind.catchUp()
    const text = changesText({ did: behind.did, changes })
    if (text.length > this.#textMax) return behind.storeNow(changes)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting.push({ behind, text, count: changes.length, stored: resolve, failed: reject })
    if (this.#waiting.length === 1) setImmediate(() => this.#tick())
    await promise
  }

  #tick(): void {
    const waiting = this.#waiting
    this.#waiting = []
    this.#lastTickMs = performance.now()
    try {
      for (const group of groups(waiting, this.#textMax)) this.#write(group)
    } catch (error) {
      this.#end(error, waiting)
    }
    this.#keepUp()
  }

  /**
   * What is in a file that failed is not known until it is read at the next start. Till then nothing
   * more is acknowledged; a shard's thread ends here, and the process with it.
   */
  #end(error: unknown, waiting: readonly Waiting[]): never {
    this.#lost = true
    for (const { failed } of waiting) failed(error)
    this.#options.log.error('journal.lost', { shard: this.#options.name, error })
    throw error
  }

  #write(group: readonly Waiting[]): void {
    const body = Buffer.from(joined(group.map(({ text }) => text)))
    try {
      if (!this.#current.file.fits(body)) this.#turn()
    } catch (error) {
      for (const { failed } of group) failed(error)
      return
    }
    const { file, relying } = this.#current
    file.append(body)
    if (this.#options.synchronous === 'full') file.sync()
    for (const { behind, count, text, stored } of group) {
      behind.later(text, count)
      relying.set(behind.did, behind)
      // After a handle was closed and opened again it is another one that lags.
      if (this.#lagging.get(behind.did)?.behind !== behind) {
        this.#lagging.delete(behind.did)
        this.#lagging.set(behind.did, { behind, sinceMs: this.#lastTickMs })
      }
      stored()
    }
  }

  /** Goes on in the other file. @throws when what is there cannot be brought to disk */
  #turn(): void {
    const next = this.#other()
    this.#free(next)
    // So that of two files the older one never lacks what the newer one goes on from.
    this.#current.file.sync()
    this.#order += 1
    next.file.begin(this.#order)
    this.#current = next
  }

  #other(): Half {
    const [a, b] = this.#halves
    return this.#current === a ? b : a
  }

  /** Brings databases to disk until none relies on the file, or `max` were. */
  #free({ relying }: Half, max = Infinity): void {
    let done = 0
    for (const [did, behind] of relying) {
      if (done >= max) return
      this.#bringToDisk(behind)
      relying.delete(did)
      done += 1
    }
  }

  #bringToDisk(behind: Behind): void {
    this.#lagging.delete(behind.did)
    try {
      behind.settle()
    } catch (error) {
      // One database that is damaged must not keep the others from writing.
      this.#options.log.error('actor.changes.unstored', { did: behind.did, error })
      behind.putAside()
    }
    behind.sync()
  }

  /** A little of what is due, after each tick. */
  #keepUp(): void {
    this.#catchUp(1)
    this.#attempt(() => this.#free(this.#other(), 1))
  }

  /** Stores what has waited long enough, in `max` databases at most: others wait meanwhile. */
  #catchUp(max: number): void {
    const nowMs = performance.now()
    if (nowMs < this.#pausedUntilMs) return
    let done = 0
    for (const [did, { behind, sinceMs }] of this.#lagging) {
      if (done >= max || nowMs - sinceMs < lagMaxMs) return
      this.#lagging.delete(did)
      done += 1
      // What fails is tried again by whoever reads or writes there, and before its file is freed.
      this.#attempt(() => behind.catchUp())
    }
  }

  /** Work that nobody waits for. Where it fails, none of its kind is tried again for a while. */
  #attempt(work: () => void): void {
    const nowMs = performance.now()
    if (nowMs < this.#pausedUntilMs) return
    try {
      work()
    } catch (error) {
      this.#pausedUntilMs = nowMs + pauseMs
      this.#options.log.error('journal.behind', { shard: this.#options.name, error })
    }
  }

  /** Without writes nothing of them is left to be made up, and in the end nothing in the files. */
  #rest(): void {
    this.#catchUp(4)
    const idle = performance.now() - this.#lastTickMs > idleMs && this.#waiting.length === 0
    if (idle && !this.#current.file.isEmpty) this.#attempt(() => this.wipe())
  }

  /** Brings all databases to disk and overwrites the files: nothing that was written is in them. */
  wipe(): void {
    for (const half of this.#halves) this.#free(half)
    // First: should the wipe stop in the middle, what is written next still starts a use that is whole.
    this.#order += 1
    this.#current.file.begin(this.#order)
    for (const { file } of this.#halves) file.wipe()
  }

  /**
   * Brings all databases to disk and removes the files. Nothing waits to be written any more.
   * @throws when a database cannot be brought to disk: then the files stay, for the next start
   */
  close(): void {
    if (this.#closed) return
    assert(this.#waiting.length === 0, 'all writes are acknowledged')
    clearInterval(this.#timer)
    this.wipe()
    for (const { file, path } of this.#halves) {
      file.close()
      unlinkSync(path)
    }
    this.#closed = true
    syncFolder(journalFolder(this.#options.dataDir))
  }
}

export function journalFolder(dataDir: string): string {
  return join(dataDir, 'journal')
}

/** What is written together, cut where a frame would become too large for a file. */
function* groups(waiting: readonly Waiting[], textMax: number): Generator<readonly Waiting[]> {
  let group: Waiting[] = []
  let length = 0
  for (const one of waiting) {
    if (length + one.text.length > textMax && group.length > 0) {
      yield group
      group = []
      length = 0
    }
    group.push(one)
    length += one.text.length
  }
  if (group.length > 0) yield group
}

/** Characters of a frame, of each byte of a file: one has up to three bytes. Larger ones go their own way. */
const textShare = 1 / 4
const textMax = 1024 * 1024
/** Changes that a database may lag behind, and for how long. */
const waitingMax = 64
const lagMaxMs = 1_000
const restEveryMs = 50
const idleMs = 10_000
const pauseMs = 1_000
