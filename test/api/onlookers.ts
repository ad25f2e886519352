import { expect } from 'bun:test'
import { join } from 'node:path'
import { ServiceStore } from '../../src/store/service.ts'
import { openSqlite } from '../../src/store/sqlite.ts'
import { exactAnswer } from '../kit/exact.ts'
import { readExport } from '../kit/export.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { type Answer, type Call, textOf, xrpcResponse } from '../kit/xrpc.ts'

const createRecord = 'zone.stratos.repo.createRecord'
export const deleteRecord = 'zone.stratos.repo.deleteRecord'
export const getRecord = 'zone.stratos.repo.getRecord'
const describeRepo = 'zone.stratos.repo.describeRepo'
export const getRepo = 'zone.stratos.sync.getRepo'
export const listRecords = 'zone.stratos.repo.listRecords'

type Credential = (
  stratos: SeededStratos,
  nsid: string,
) => Promise<string | undefined> | string | undefined
const developer =
  (name: string): Credential =>
  (stratos) =>
    stratos.person(name).bearer
const byToken =
  (name: string): Credential =>
  async (stratos, lxm) =>
    `Bearer ${await serviceToken(stratos.person(name), { aud: stratos.did, lxm })}`

/** Everybody to whom a takedown must look as if nothing had been there. */
const outsiders: Record<string, Credential> = {
  'nobody in particular': () => undefined,
  'a stranger': byToken('stranger'),
  'a member of the boundary': developer('bob'),
  'a member of the boundary with a token': byToken('bob'),
  'a member of another boundary': developer('carol'),
  'somebody of no boundary': developer('dave'),
  // On all methods but two it is a person, here one of the boundary.
  'the moderation service': byToken('mod'),
}
const credentials: Record<string, Credential> = {
  ...outsiders,
  'the owner': developer('alice'),
  'the operator': (stratos) => stratos.adminBasic,
}
export const others = Object.keys(outsiders)
export const everybody = Object.keys(credentials)

export interface Ref {
  readonly uri: string
  readonly cid: string
}

/** What can be asked about a record, its list and its owner. */
export const questions: Record<string, (ref: Ref) => [nsid: string, call: Call]> = {
  getRecord: ({ uri }) => [getRecord, { params: addressOf(uri) }],
  'getRecord by CID': ({ uri, cid }) => [getRecord, { params: { ...addressOf(uri), cid } }],
  'the twin of getRecord': ({ uri }) => ['com.atproto.repo.getRecord', { params: addressOf(uri) }],
  listRecords: ({ uri }) => [listRecords, { params: listOf(uri) }],
  'listRecords a page': ({ uri }) => [listRecords, { params: { ...listOf(uri), limit: 1 } }],
  'listRecords reversed': ({ uri }) => [listRecords, { params: { ...listOf(uri), reverse: true } }],
  'the twin of listRecords': ({ uri }) => ['com.atproto.repo.listRecords', { params: listOf(uri) }],
  describeRepo: ({ uri }) => [describeRepo, { params: { repo: addressOf(uri).repo } }],
  status: ({ uri }) => ['zone.stratos.enrollment.status', { params: { did: addressOf(uri).repo } }],
}
export type Answers = Readonly<Record<string, string>>

/** A service with alice's repo in it, and all who look at that. */
export class Onlookers {
  readonly stratos: SeededStratos

  private constructor(stratos: SeededStratos) {
    this.stratos = stratos
  }

  static async start(): Promise<Onlookers> {
    const ofA = { alice: ['a', 'b'], bob: ['a'], mod: ['a'], erin: ['a'] }
    const people = { ...ofA, carol: ['b'], dave: [] }
    const onlookers = new Onlookers(await SeededStratos.start({ people }))
    await onlookers.restart()
    return onlookers
  }

  /** Ends the process, lets `between` work on its data, and starts it with the same moderator. */
  async restart(between: () => Promise<void> = async () => undefined): Promise<void> {
    expect(await this.stratos.terminate()).toBe(0)
    await between()
    await this.stratos.run({ STRATOS_MOD_SERVICE_DID: this.stratos.person('mod').did })
  }

  /** The membership goes and comes back as it was; what else there is of the person stays. */
  async leaveAndReturn(name: string): Promise<void> {
    const { did } = this.stratos.person(name)
    const sqlite = this.openServiceSqlite()
    const enrollment = await new ServiceStore(sqlite).enrollment(did)
    if (enrollment === undefined) throw new Error(`${name} is not enrolled`)
    const tables = ['enrollment', 'enrollment_boundary']
    const leave = tables.map((table) => ({
      sql: `delete from ${table} where did = $1`,
      args: [did],
    }))
    await sqlite.run(leave)
    const store = new ServiceStore(sqlite)
    expect(await store.enrollment(did)).toBeUndefined()
    await store.enroll(enrollment, '{}')
    await store.clearOutbox(did)
    await store.dropOauthSession(did)
    await sqlite.close()
  }

  /** Between two runs of the process. */
  openServiceSqlite() {
    const path = join(this.stratos.dataFolder, 'service.sqlite')
    return openSqlite(path, { synchronous: 'normal', cacheKib: 1024, exclusive: true })
  }

  async #authorizationOf(who: string, nsid: string): Promise<string | undefined> {
    const credential = credentials[who]
    if (credential === undefined) throw new Error(`who is ${who}`)
    return await credential(this.stratos, nsid)
  }

  async ask(who: string, nsid: string, call: Call): Promise<Answer> {
    return this.stratos.call(nsid, {
      ...call,
      authorization: await this.#authorizationOf(who, nsid),
    })
  }

  /** The rev of the repo is told to its owner alone, and moves with every write. */
  async exact(who: string, nsid: string, call: Call): Promise<string> {
    const authorization = await this.#authorizationOf(who, nsid)
    const answer = await exactAnswer(this.stratos.url, nsid, { ...call, authorization })
    return answer.replace(/^atproto-repo-rev: .*\n/m, '')
  }

  async answers(who: string, ref: Ref): Promise<Answers> {
    const found: Record<string, string> = {}
    for (const [name, question] of Object.entries(questions)) {
      const [nsid, call] = question(ref)
      const text = await this.exact(who, nsid, call)
      // An attestation is signed anew each time.
      found[name] = name === 'status' ? text.replace(/"attestation":.*/, '') : text
    }
    return found
  }

  async exported(who: string, name: string) {
    const { did } = this.stratos.person(name)
    const authorization = await this.#authorizationOf(who, getRepo)
    const response = await xrpcResponse(this.stratos.url, getRepo, {
      params: { did },
      authorization,
    })
    expect(response.status).toBe(200)
    const status = await this.stratos.call('zone.stratos.enrollment.status', {
      params: { did },
    })
    return await readExport(await response.bytes(), textOf(status.body, 'signingKey'))
  }

  async expectNoExport(who: string): Promise<void> {
    const { did } = this.stratos.person('alice')
    const refusal: Refusal =
      who === 'nobody in particular' ? [401, 'AuthMissing'] : [403, 'Forbidden']
    expectRefusal(await this.ask(who, getRepo, { params: { did } }), refusal)
  }

  #writing(name: string, { rkey, record = {} }: Made) {
    const { did: repo, bearer: authorization } = this.stratos.person(name)
    const post = { ...privatePost('a post', [this.stratos.boundary('a')]), ...record }
    const named = rkey === undefined ? {} : { rkey }
    return { authorization, input: { repo, collection: postCollection, record: post, ...named } }
  }

  async write(name: string, made: Made): Promise<Ref> {
    const { body } = await this.stratos.call(createRecord, this.#writing(name, made))
    return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
  }

  /** What a write is answered; what came of it is deleted again. */
  async exactWrite(name: string, record: object): Promise<string> {
    const call = this.#writing(name, { rkey: 'tried', record })
    const answer = await exactAnswer(this.stratos.url, createRecord, call)
    const { authorization, input } = call
    await this.stratos.call(deleteRecord, { authorization, input: { ...input, record: undefined } })
    return answer
  }
}

interface Made {
  readonly rkey?: string
  readonly record?: object
}

export function uriOf({ repo, rkey }: { readonly repo: string; readonly rkey: string }): string {
  return `at://${repo}/${postCollection}/${rkey}`
}

export function listOf(uri: string) {
  return { repo: addressOf(uri).repo, collection: postCollection }
}

export function replyTo(ref: Ref): object {
  return { reply: { root: ref, parent: ref } }
}

export function quoteOf(record: Ref): object {
  return { embed: { $type: 'app.bsky.embed.record', record } }
}
