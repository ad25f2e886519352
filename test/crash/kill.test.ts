import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Did } from '../../src/atproto/syntax.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { signIn } from '../kit/sign-in.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { xrpcResponse } from '../kit/xrpc.ts'
import { type ActorFile, fileComplaints, readActorFile } from './actor-file.ts'
import { type Dice, timesOf, withDice } from './dice.ts'
import { Ledger } from './ledger.ts'
import { Load } from './load.ts'
import { isOfRows, recordsOfExport } from './repo.ts'
import { StubTaker } from './stub-taker.ts'

const kills = timesOf('STRATOS_TEST_KILLS', 40)
const names = Array.from({ length: 5 }, (_, index) => `person-${index}`)
const writersOfPerson = 3
/** How long it writes at most before it is killed, where that is at any moment. */
const writingMs = 400
/** How many requests are answered at most before it is killed, where that is amid writes. */
const answersMost = 150
/** So that a kill does not always come just after an answer. */
const afterAnswerMs = 10
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
        STRATOS_ENROLLMENT_MODE: 'open',
        // All stubs may be delivered at once.
        STRATOS_OUTBOX_POINTS_PER_HOUR: '1000000',
        STRATOS_SHARDS: String(shards),
        STRATOS_SQLITE_SYNCHRONOUS: synchronous,
        // With few, databases are closed and opened again all the time.
        STRATOS_ACTOR_HANDLES: String(dice.one([8, 256])),
        STRATOS_JOURNAL_BYTES: String(dice.one([65_536, 8_388_608])),
      }
      await using pds = new StubTaker()
      await using stratos = await SeededStratos.start({ people: {}, strangers: names, env })
      for (const name of names) await signIn(stratos, name, { pds: pds.signIn })
      const rounds = new Rounds(stratos, pds, dice)
      const most = Math.ceil(kills * share)
      for (let kill = 0; kill < most; kill++) await rounds.one()
      await rounds.allDelivered()
      // A kill before the first answer, or when nothing is under way, shows nothing.
      expect(rounds.amidWrites).toBeGreaterThanOrEqual(rounds.awaited / 2)
    })
  },
  Math.max(60_000, kills * 5_000),
)

/** One data folder under one service after the other, each of which is killed. */
class Rounds {
  /** Kills before which there had to be answers. */
  awaited = 0
  /** Kills that came after an answer, and that left a request without one. */
  amidWrites = 0
  readonly #stratos: SeededStratos
  readonly #pds: StubTaker
  readonly #dice: Dice
  readonly #ledger = new Ledger()
  readonly #dids: readonly Did[]
  /** Of each person, as they were when last seen. */
  readonly #files = new Map<Did, ActorFile>()
  #number = 0

  constructor(stratos: SeededStratos, pds: StubTaker, dice: Dice) {
    this.#stratos = stratos
    this.#pds = pds
    this.#dice = dice
    this.#dids = names.map((name) => stratos.person(name).did)
  }

  /** From a service that runs to the next one, with all that must hold in between. */
  async one(): Promise<void> {
    await this.#writeAndKill()
    while (this.#dice.oneIn(5)) await this.#killWhileStarting()
    await this.#stratos.run()
    for (const did of this.#dids) await this.#verify(did)
  }

  /** What the killed ones had not delivered, the last one does: just the records that are there. */
  async allDelivered(): Promise<void> {
    for (const did of this.#dids) {
      const records = this.#files.get(did)?.records ?? []
      const expected = records.map(({ rkey, cid }) => `${rkey} ${cid}`)
      await eventually(`stubs of ${did}`, () =>
        Bun.deepEquals(this.#pds.stubsOf(did), expected) ? true : undefined,
      )
    }
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
    const isFirst = this.awaited === 0
    // At any moment: it may be the start of the writes.
    if (!isFirst && this.#dice.oneIn(4)) await Bun.sleep(this.#dice.below(writingMs))
    else {
      await load.answered(this.#dice.between(1, answersMost))
      await Bun.sleep(this.#dice.below(afterAnswerMs))
      this.awaited += 1
    }
    load.expectEnd()
    await this.#stratos.kill()
    await load.ended()
    const asked = load.number - this.#number
    if (load.answers > 0 && load.answers < asked) this.amidWrites += 1
    this.#number = load.number
  }

  async #killWhileStarting(): Promise<void> {
    const started = failureOf(this.#stratos.run())
    await Bun.sleep(this.#dice.below(startingMs))
    await this.#stratos.kill()
    await started
  }

  /** What the next service makes of what the killed one left, and the rows that it has then. */
  async #verify(did: Did): Promise<void> {
    const { url, adminBasic } = this.#stratos
    const key = await this.#signingKey(did)
    const call = { params: { did }, authorization: adminBasic }
    const response = await xrpcResponse(url, 'zone.stratos.sync.getRepo', call)
    expect(response.status).toBe(200)
    const found = await recordsOfExport(await response.bytes(), did, key)
    expect(this.#ledger.complaints(did, found.records)).toEqual([])
    this.#ledger.settle(did, found.records)
    const file = readActorFile(this.#database(did), did)
    expect(isOfRows(found, file)).toBeTrue()
    const complaints = fileComplaints(file, {
      answered: this.#ledger.answered(did),
      before: this.#files.get(did)?.events,
      pds: this.#pds.of(did),
    })
    expect(complaints).toEqual([])
    this.#files.set(did, file)
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
