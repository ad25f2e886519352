import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { ActorOutbox } from '../../src/store/actor-outbox.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { postCollection } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { failureOf } from '../kit/wait.ts'
import { xrpcResponse } from '../kit/xrpc.ts'
import { type ActorFile, fileComplaints, readActorFile } from './actor-file.ts'
import { type Dice, timesOf, withDice } from './dice.ts'
import { Ledger } from './ledger.ts'
import { Load } from './load.ts'
import { isOfRows, recordsOfExport } from './repo.ts'

const kills = timesOf('STRATOS_TEST_KILLS', 40)
const names = Array.from({ length: 8 }, (_, index) => `person-${index}`)
const writersOfPerson = 3
/** How long it writes at most before it is killed. */
const writingMs = 500
/** A start takes about as long: some kills fall into it. */
const startingMs = 400

test.each([
  { shards: 2, synchronous: 'full', share: 0.5 },
  { shards: 0, synchronous: 'full', share: 0.3 },
  // A kill takes nothing of what the system was given to write.
  { shards: 2, synchronous: 'normal', share: 0.2 },
])(
  'over many kills nothing acknowledged is lost and all verifies: %j',
  async ({ shards, synchronous, share }) => {
    await withDice(async (dice) => {
      const env = {
        STRATOS_SHARDS: String(shards),
        STRATOS_SQLITE_SYNCHRONOUS: synchronous,
        // With few, databases are closed and opened again all the time.
        STRATOS_ACTOR_HANDLES: String(dice.one([8, 256])),
      }
      const people = Object.fromEntries(names.map((name) => [name, ['a']]))
      await using stratos = await SeededStratos.start({ people, env })
      const rounds = new Rounds(stratos, dice)
      const most = Math.ceil(kills * share)
      for (let kill = 0; kill < most; kill++) await rounds.one()
      // A kill before the first answer shows nothing: most must have come in the midst of writes.
      expect(rounds.answers).toBeGreaterThan(most * 10)
    })
  },
  Math.max(60_000, kills * 5_000),
)

/** One data folder under one service after the other, each of which is killed. */
class Rounds {
  answers = 0
  readonly #stratos: SeededStratos
  readonly #dice: Dice
  readonly #ledger = new Ledger()
  readonly #dids: readonly Did[]
  /** Of each person, as they were when last seen. */
  readonly #files = new Map<Did, ActorFile>()
  readonly #cleared = new Map<Did, Set<string>>()
  #number = 0

  constructor(stratos: SeededStratos, dice: Dice) {
    this.#stratos = stratos
    this.#dice = dice
    this.#dids = names.map((name) => stratos.person(name).did)
  }

  /** From a service that runs to the next one, with all that must hold in between. */
  async one(): Promise<void> {
    await this.#writeAndKill()
    for (const did of this.#dids) this.#inspect(did)
    if (this.#dice.oneIn(3)) for (const did of this.#dids) await this.#deliver(did)
    while (this.#dice.oneIn(5)) await this.#killWhileStarting()
    await this.#stratos.run()
    for (const did of this.#dids) await this.#verify(did)
  }

  async #writeAndKill(): Promise<void> {
    const { url } = this.#stratos
    const load = new Load({
      url,
      boundary: this.#stratos.boundary('a'),
      dice: this.#dice,
      note: (note) => this.#ledger.note(note),
      number: this.#number,
    })
    for (const did of this.#dids) {
      const rkeys = this.#ledger.settledKeys(did)
      for (let writer = 0; writer < writersOfPerson; writer++) {
        load.startWriter(
          did,
          rkeys.filter((_, index) => index % writersOfPerson === writer),
        )
      }
    }
    await Bun.sleep(this.#dice.below(writingMs))
    load.expectEnd()
    await this.#stratos.kill()
    await load.ended()
    this.#number = load.number
    this.answers += load.answers
  }

  async #killWhileStarting(): Promise<void> {
    const started = failureOf(this.#stratos.run())
    await Bun.sleep(this.#dice.below(startingMs))
    await this.#stratos.kill()
    await started
  }

  /** The files as the kill left them. */
  #inspect(did: Did): void {
    const file = readActorFile(this.#database(did), did)
    const answered = this.#ledger.answered(did)
    const before = this.#files.get(did)?.events
    const cleared = this.#cleared.get(did)
    const pds = {
      // The CID of the record stands in for that of its stub: it tells which one was delivered.
      taken: (cid: string) => cid,
      isCleared: (rkey: string) => cleared?.has(rkey) === true,
    }
    expect(fileComplaints(file, { answered, before, pds })).toEqual([])
    if (file.outbox.some(({ pending }) => pending === 1)) {
      expect(this.#isDirty(did)).toBeTrue()
    }
    this.#files.set(did, file)
  }

  /** Rows whose delivery is not found by a service's own memory are found by this mark. */
  #isDirty(did: Did): boolean {
    using database = new Database(join(this.#stratos.dataFolder, 'service.sqlite'))
    return database.query('select 1 from outbox_dirty where did = ?1').get(did) !== null
  }

  /** Settles some rows, as if the person's PDS had taken them. */
  async #deliver(did: Did): Promise<void> {
    const options = { synchronous: 'full', cacheKib: 256, exclusive: false } as const
    const sqlite = openSqlite(this.#database(did), options)
    const outbox = new ActorOutbox(sqlite)
    const cleared = this.#cleared.get(did) ?? new Set()
    for (const row of await outbox.rows(this.#dice.below(30))) {
      if (row.collection !== postCollection) continue
      const pdsCid = row.record === null ? null : JSON.parse(row.record).source.subject.cid
      await outbox.settle(row, pdsCid)
      if (pdsCid === null) cleared.add(row.rkey)
    }
    this.#cleared.set(did, cleared)
    await sqlite.close()
  }

  /** What the next service makes of the files. */
  async #verify(did: Did): Promise<void> {
    const { url, adminBasic } = this.#stratos
    const file = this.#files.get(did)
    const key = await this.#signingKey(did)
    const call = { params: { did }, authorization: adminBasic }
    const response = await xrpcResponse(url, 'zone.stratos.sync.getRepo', call)
    expect(response.status).toBe(200)
    if (file === undefined) throw new Error(`${did} was not inspected`)
    const found = await recordsOfExport(await response.bytes(), did, key)
    expect(isOfRows(found, file)).toBeTrue()
    expect(this.#ledger.complaints(did, found.records)).toEqual([])
    this.#ledger.settle(did, found.records)
  }

  async #signingKey(did: Did): Promise<string> {
    const call = { params: { did }, authorization: this.#stratos.adminBasic }
    const { body } = await this.#stratos.call('zone.stratos.enrollment.status', call)
    return String(body['signingKey'])
  }

  #database(did: Did): string {
    return join(actorFolder(this.#stratos.dataFolder, did), 'stratos.sqlite')
  }
}
