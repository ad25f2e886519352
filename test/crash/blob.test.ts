import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { readdirSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import type { Cid } from '../../src/atproto/cid.ts'
import { BlobUploaders } from '../api/blob-uploaders.ts'
import { getBlob } from '../kit/blob.ts'
import { noBytes } from '../kit/blob-bytes.ts'
import { addressOf } from '../kit/post.ts'
import { getStatus } from '../kit/takedown.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { fieldsOf, listOf, textOf } from '../kit/xrpc.ts'
import { namedBlobs } from '../../src/service/blob.ts'
import { checkData } from '../../src/atproto/data.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { BlobLoad, contentOf, type Known } from './blob-load.ts'
import { type Dice, timesOf, withDice } from './dice.ts'

const kills = Math.ceil(timesOf('STRATOS_TEST_KILLS', 40) / 10)
const names = ['ada', 'bea', 'cem'] as const
const keysOfWriter = 4
const writersOfPerson = 2
/** How long it writes at most before it is killed, or on after an answer, and how long it starts. */
const writingMs = 500
const afterAnswerMs = 100
const startingMs = 400
const answersMost = 60
/** So often everything is made old, and only what is named may be left. */
const agedEvery = 4

test(
  'over many kills every record has its blobs, and nothing else stays',
  async () => {
    await withDice(async (dice) => {
      const env = {
        STRATOS_SHARDS: String(dice.one([0, 2])),
        STRATOS_ACTOR_HANDLES: String(dice.one([8, 256])),
        STRATOS_JOURNAL_BYTES: String(dice.one([65_536, 8_388_608])),
      }
      const people = Object.fromEntries(names.map((name) => [name, ['a']]))
      await using service = await BlobUploaders.start({ people, env })
      const rounds = new Rounds(service, dice)
      for (let kill = 1; kill <= kills; kill++) {
        await rounds.writeAndKill()
        await rounds.verify()
        if (kill % agedEvery === 0 || kill === kills) await rounds.age()
      }
    })
  },
  Math.max(120_000, kills * 10_000),
)

class Rounds {
  readonly #service: BlobUploaders
  readonly #dice: Dice
  readonly #known: ReadonlyMap<string, Known>

  constructor(service: BlobUploaders, dice: Dice) {
    this.#service = service
    this.#dice = dice
    this.#known = new Map(names.map((name) => [name, this.#person(name)]))
  }

  async writeAndKill(): Promise<void> {
    const { stratos } = this.#service
    const dice = this.#dice
    const admin = stratos.adminBasic
    const load = new BlobLoad({ url: stratos.url, boundary: stratos.boundary('a'), admin, dice })
    for (const [name, known] of this.#known) {
      for (let writer = 0; writer < writersOfPerson; writer++) {
        const keys = Array.from({ length: keysOfWriter }, (_, key) => `${name}-${writer}-${key}`)
        load.startWriter(known, keys)
      }
      load.startUploader(known)
    }
    // At any moment: it may be the start of the writes, which shows little.
    if (dice.oneIn(4)) await Bun.sleep(dice.below(writingMs))
    else {
      await load.answered(dice.between(1, answersMost))
      await Bun.sleep(dice.below(afterAnswerMs))
    }
    load.expectEnd()
    await stratos.kill()
    await load.ended()
    while (dice.oneIn(3)) {
      const started = failureOf(stratos.run())
      await Bun.sleep(dice.below(startingMs))
      await stratos.kill()
      await started
    }
    await stratos.run()
  }

  /** What was answered stands, and every blob that a record names is there. */
  async verify(): Promise<void> {
    for (const [name, known] of this.#known) {
      const found = await this.#records(name)
      for (const [rkey, cids] of known.records) {
        if (!known.unsure.has(rkey)) expect([rkey, found.get(rkey)]).toEqual([rkey, cids])
      }
      for (const rkey of found.keys()) {
        const isKnown = known.unsure.has(rkey) || known.records.get(rkey) !== undefined
        expect([rkey, isKnown]).toEqual([rkey, true])
      }
      known.unsure.clear()
      known.records.clear()
      for (const [rkey, cids] of found) known.records.set(rkey, cids)
      await this.#readAll(name, [...found.values()].flat())
      // What waits can still be named, by one of them.
      const waits = known.waiting.at(-1)
      if (waits === undefined) continue
      await this.#service.remove(name, await this.#service.post(name, waits.ref))
      known.waiting.pop()
    }
  }

  /** Makes everything so old that the sweep takes what nothing needs, and only that. */
  async age(): Promise<void> {
    const { stratos } = this.#service
    await stratos.terminate()
    for (const name of names) {
      if ((await this.#service.bytes(name)).temporary.length > 0) this.#makeOld(name)
      using database = new Database(this.#database(name))
      database.run('update stratos_blob set "uploadedAtMs" = 0')
    }
    await stratos.run()
    for (const [name, known] of this.#known) {
      known.waiting.length = 0
      const named = [...new Set([...known.records.values()].flatMap((cids) => cids ?? []))]
      const down = await this.#takendown(name, named)
      const up = named.filter((cid) => !down.includes(cid))
      const expected = { ...noBytes, permanent: up.toSorted(), quarantined: down.toSorted() }
      await this.#service.settled(name, expected)
      await eventually('rows of what is named alone', () => {
        const rows = this.#service.rows(name).map(({ cid, tempKey }) => [cid, tempKey])
        return Bun.deepEquals(
          rows,
          named.toSorted().map((cid) => [cid, null]),
        )
          ? true
          : undefined
      })
      await this.#readAll(name, named)
    }
  }

  #person(name: string): Known {
    return {
      did: this.#service.did(name),
      contents: [4, 1_000, 100_000, 300_000, 600_000].map(contentOf),
      records: new Map(),
      unsure: new Set(),
      waiting: [],
    }
  }

  /** Right bytes, or word that they are taken down; and nothing is missing. */
  async #readAll(name: string, cids: readonly Cid[]): Promise<void> {
    const { stratos } = this.#service
    const contents = this.#known.get(name)?.contents ?? []
    const authorization = stratos.person(name).bearer
    for (const cid of new Set(cids)) {
      const down = (await this.#takendown(name, [cid])).length > 0
      await eventually(`bytes of ${cid}`, async () => {
        const response = await getBlob(stratos, name, { cid, authorization })
        const bytes = await response.bytes()
        if (down) return response.status === 403 ? true : undefined
        if (response.status !== 200) return undefined
        expect(bytes).toEqual(contents.find((one) => one.cid === cid)?.bytes ?? bytes.subarray(1))
        return true
      })
    }
    const { body } = await stratos.callAs(name, 'com.atproto.repo.listMissingBlobs')
    expect(body['blobs']).toEqual([])
  }

  async #takendown(name: string, cids: readonly Cid[]): Promise<Cid[]> {
    const { stratos } = this.#service
    const down: Cid[] = []
    for (const cid of cids) {
      const params = { did: this.#service.did(name), blob: cid }
      const call = { params, authorization: stratos.adminBasic }
      const { body } = await stratos.call(getStatus, call)
      if (fieldsOf(body, 'takedown')['applied'] === true) down.push(cid)
    }
    return down
  }

  /** The blobs that each record names, by its key. */
  async #records(name: string): Promise<Map<string, readonly Cid[]>> {
    const params = {
      repo: this.#service.did(name),
      collection: 'zone.stratos.feed.post',
      limit: 100,
    }
    const { body } = await this.#service.stratos.callAs(name, 'zone.stratos.repo.listRecords', {
      params,
    })
    return new Map(
      listOf(body, 'records').map((record) => {
        const value = record['value']
        checkData(value)
        return [addressOf(textOf(record, 'uri')).rkey, namedBlobs(value).map(({ cid }) => cid)]
      }),
    )
  }

  #database(name: string): string {
    const { dataFolder } = this.#service.stratos
    return join(actorFolder(dataFolder, this.#service.did(name)), 'stratos.sqlite')
  }

  #makeOld(name: string): void {
    const folder = join(this.#service.stratos.dataFolder, 'blobs', 'temp', this.#service.did(name))
    const past = new Date(Date.now() - 48 * 3_600_000)
    for (const file of readdirSync(folder)) utimesSync(join(folder, file), past, past)
  }
}
