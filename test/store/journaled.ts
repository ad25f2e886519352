import { Database } from 'bun:sqlite'
import { cpSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Did, parseDid, parseRkey, recordUri } from '../../src/atproto/syntax.ts'
import { folder as texts } from '../../src/lib/embed.macro.ts' with { type: 'macro' }
import { makeFolder } from '../../src/lib/files.ts'
import { createLog } from '../../src/lib/log.ts'
import type { Change, Head } from '../../src/store/actor-change.ts'
import { actorDatabasePath, openActorDatabase } from '../../src/store/actor-database.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import type { Behind } from '../../src/store/behind.ts'
import { Journal } from '../../src/store/journal.ts'
import { recover } from '../../src/store/recover.ts'
import type { Synchronous } from '../../src/store/sqlite.ts'
import { changeOn, collection, place, put } from './changes.ts'

const migrations = texts('migrations/actor/sqlite')

/** A data folder with a journal, and the actors who write through it. */
export class Journaled {
  readonly dataDir: string
  readonly journal: Journal
  readonly log: string[]
  readonly writers: Writer[] = []

  constructor(
    dataDir: string,
    over: { readonly journalBytes?: number; readonly synchronous?: Synchronous } = {},
  ) {
    this.dataDir = dataDir
    this.log = []
    const log = createLog('info', (line) => void this.log.push(line))
    this.journal = new Journal({
      dataDir,
      name: 'shard-0',
      synchronous: 'full',
      journalBytes: 8_388_608,
      log,
      ...over,
    })
  }

  async writer(): Promise<Writer> {
    const did = parseDid(`did:web:${crypto.randomUUID()}.test`)
    makeFolder(actorFolder(this.dataDir, did))
    const writer = new Writer(this, did, await openActor(this.dataDir, did))
    this.writers.push(writer)
    return writer
  }

  /** The data folder as a kill at this moment would leave it. */
  copy(): string {
    const copy = `${this.dataDir}-${crypto.randomUUID()}`
    cpSync(this.dataDir, copy, { recursive: true })
    return copy
  }

  async close(): Promise<void> {
    this.journal.close()
    for (const { behind } of this.writers) await behind.close()
  }
}

/** One actor. What it has had acknowledged is `keys`. */
export class Writer {
  readonly did: Did
  behind: Behind
  readonly keys: string[] = []
  #head: Head | undefined
  readonly #house: Journaled

  constructor(house: Journaled, did: Did, behind: Behind) {
    this.#house = house
    this.did = did
    this.behind = behind
  }

  /** The Change that makes one record, on all that were made before. */
  change(rkey: string, text = rkey): Change {
    const op = {
      action: 'create',
      ...place(rkey),
      uri: recordUri(this.did, collection, parseRkey(rkey)),
      ...put(text, (this.#head?.lastBlock ?? 0) + 1),
      before: [],
      after: ['a'],
    } as const
    const change = { ...changeOn(this.#head, [op]), did: this.did }
    this.#head = change.after
    return change
  }

  async write(rkey: string, text = rkey): Promise<void> {
    await this.#house.journal.store(this.behind, [this.change(rkey, text)])
    this.keys.push(rkey)
  }

  async reopen(): Promise<void> {
    await this.behind.close()
    this.behind = await openActor(this.#house.dataDir, this.did)
  }

  get database(): string {
    return actorDatabasePath(this.#house.dataDir, this.did)
  }

  /** Keys of the records that `behind` gives to those who ask it. */
  async seen(): Promise<string[]> {
    const rows = await this.behind.all<{ rkey: string }>(
      'select rkey from stratos_record order by "blockId"',
    )
    return rows.map(({ rkey }) => rkey)
  }

  /** From now on the database refuses a record of that key. */
  refuse(rkey: string): void {
    change(
      this.database,
      `create trigger refuse before insert on stratos_record when new.rkey = '${rkey}'
        begin select raise(abort, 'refused'); end`,
    )
  }

  accept(): void {
    change(this.database, 'drop trigger refuse')
  }
}

/** What a start makes of a data folder; gives the log. */
export async function recovered(dataDir: string): Promise<string[]> {
  const lines: string[] = []
  await recover(
    { dataDir, migrations },
    createLog('info', (line) => void lines.push(line)),
  )
  return lines
}

/** Keys of the records in an actor's file, whoever has it open. */
export function storedKeys(dataDir: string, did: Did): string[] {
  using database = new Database(actorDatabasePath(dataDir, did))
  return database
    .query<{ rkey: string }, []>('select rkey from stratos_record order by "blockId"')
    .all()
    .map(({ rkey }) => rkey)
}

/** Everything in the files of the journal. */
export function journalBytes(dataDir: string): Buffer {
  const folder = join(dataDir, 'journal')
  return Buffer.concat(readdirSync(folder).map((name) => readFileSync(join(folder, name))))
}

export function openActor(dataDir: string, did: Did): Promise<Behind> {
  return openActorDatabase(did, { dataDir, synchronous: 'full', migrations })
}

function change(path: string, sql: string): void {
  using database = new Database(path)
  database.run(sql)
}
