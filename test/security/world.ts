import { P256Keypair, Secp256k1Keypair } from '@atproto/crypto'
import { base58btc } from 'multiformats/bases/base58'
import { randomBytes } from 'node:crypto'
import { blobRefOf, picturePost } from '../kit/blob.ts'
import { AppKey, DpopApp } from '../kit/dpop.ts'
import { postCollection } from '../kit/post.ts'
import { seed } from '../kit/seed.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { beginSession, endedSession } from '../kit/stratos-session.ts'
import { getStatus } from '../kit/takedown.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, listOf, xrpcResponse } from '../kit/xrpc.ts'
import { documentOf, method } from '../remote/directory.ts'
import { Issuer } from '../remote/issuer.ts'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { parseDid } from '../../src/atproto/syntax.ts'
import type { DoorClass } from './doors.ts'
import { Stored } from './stored.ts'
import { WebHost } from './web-host.ts'

/** Somebody of the matrix, with the key that the DID document names. */
export interface Actor {
  readonly did: string
  readonly key: Secp256k1Keypair | P256Keypair
}

/** Every member has a record of this key, in the boundary a. */
export const ownRkey = 'own'

type Ask = readonly [nsid: string, params: Readonly<Record<string, string>>]

/**
 * Those on whom the methods act. Each kind of credential has its own, so that what a sound one does
 * at the end is in nobody else's way. Lou leaves before the matrix begins.
 */
const names = 'alice kate pat otto dan vic val moe cora cleo sue sol dora dolf bea stan olga otis'
const members = `${names} oona wim lou`.split(' ')
const strangers = ['view', 'former-view', 'mod', 'former-mod']

/** A service with people of every kind, and all that a request could change in it. */
export class World implements AsyncDisposable {
  readonly stratos: SeededStratos
  /** An authorization server that publishes its keys: that of dora, dolf and lou. */
  readonly issuer: Issuer
  /** One of the same kind that is nobody's. */
  readonly otherIssuer: Issuer
  readonly stored: Stored
  /** In the text of every record. */
  readonly marker = `only for us ${crypto.randomUUID()}`
  /** The same text as a blob, which the record of every member names as its picture. */
  readonly blob = cidToString(cidForRaw(Buffer.from(this.marker)))
  /** A key that is nobody's. */
  readonly foreignKey: Secp256k1Keypair
  /** Stands first in the DID document of wes, and is not the one that speaks for him. */
  readonly labelKey: Secp256k1Keypair
  /** The key of an app that nobody bound. */
  readonly foreignApp: AppKey
  /** The key that calls of bindKey bind, and those of unbindKey unbind; bea has bound it. */
  readonly spareKey: AppKey
  readonly syncSecret = `sync-secret-${randomBytes(24).toString('base64url')}`
  /** Known to the directory, and by no key that could sign. */
  readonly badIssuers: Readonly<Record<'keyless' | 'offK256' | 'offP256' | 'impostor', string>>
  /** The latest that the service gave out. */
  nonce: string | undefined
  /** One of a process that has ended. */
  staleNonce = ''
  /** Values of an Authorization header, by who has the session or what became of it. */
  readonly sessions = new Map<string, string>()
  /** Apps with their keys and tokens, by whose they are or what became of the key. */
  readonly apps = new Map<string, DpopApp>()
  readonly #actors = new Map<string, Actor>()
  readonly #webHost: WebHost
  #requests = 0
  #log = ''

  private constructor(parts: {
    readonly stratos: SeededStratos
    readonly issuers: readonly [Issuer, Issuer]
    readonly foreignKey: Secp256k1Keypair
    readonly wesKey: Secp256k1Keypair
    readonly labelKey: Secp256k1Keypair
    readonly appKeys: readonly [AppKey, AppKey]
  }) {
    this.stratos = parts.stratos
    ;[this.issuer, this.otherIssuer] = parts.issuers
    this.foreignKey = parts.foreignKey
    this.labelKey = parts.labelKey
    ;[this.foreignApp, this.spareKey] = parts.appKeys
    const { directory } = parts.stratos
    const { did: alice, key } = parts.stratos.person('alice')
    this.badIssuers = {
      keyless: directory.add({}),
      offK256: directory.add({ didKey: noPoint([0xe7, 0x01]) }),
      offP256: directory.add({ didKey: noPoint([0x80, 0x24]) }),
      impostor: directory.add({ didKey: key.did(), id: alice }),
    }
    this.stored = new Stored(parts.stratos.dataFolder)
    this.#webHost = new WebHost((did) => webDocument(did, parts))
    this.#actors.set('wes', { did: this.#webHost.did, key: parts.wesKey })
  }

  /** With the AppView and the moderation service that are to be former ones still in place. */
  static async start(): Promise<World> {
    const people = Object.fromEntries(members.map((name) => [name, ['a']]))
    const world = new World({
      stratos: await SeededStratos.start({ people, strangers }),
      issuers: [await Issuer.open(), await Issuer.open()],
      foreignKey: await Secp256k1Keypair.create(),
      wesKey: await Secp256k1Keypair.create(),
      labelKey: await Secp256k1Keypair.create(),
      appKeys: [await AppKey.create(), await AppKey.create()],
    })
    try {
      await world.#seed()
      await world.stratos.run(world.#settings('listed'))
      for (const name of [...members, 'wes']) await world.#write(name)
      await world.#begin()
      await world.#bindLongAgo()
    } catch (error) {
      await world[Symbol.asyncDispose]()
      throw error
    }
    return world
  }

  /** All that the service has logged, as far as it was kept. */
  get log(): string {
    return this.#log + this.stratos.log
  }

  actor(name: string): Actor {
    return this.#actors.get(name) ?? this.stratos.person(name)
  }

  app(name: string): DpopApp {
    const app = this.apps.get(name)
    if (app === undefined) throw new Error(`no app is called ${name}`)
    return app
  }

  /** An address of its own for each request: what one fails is not counted against others. */
  nextAddress(): string {
    const count = ++this.#requests
    return `10.${(count >> 16) & 255}.${(count >> 8) & 255}.${count & 255}`
  }

  /** Lets `between` look at what the service has stored. */
  async restart(
    between: () => void = () => undefined,
    env: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    this.#log += this.stratos.log
    await this.stratos.terminate()
    between()
    await this.stored.readSessionSecret()
    await this.stratos.run({ ...this.#settings('unlisted'), ...env })
    // Nonces do not outlive the process that gave them out.
    const answer = await this.stratos.call('zone.stratos.server.listDomains', {
      headers: { dpop: 'none' },
    })
    this.nonce = answer.headers.get('dpop-nonce') ?? undefined
  }

  /** A digest of what the methods of a class could change of somebody. */
  async state(name: string, inClass: DoorClass): Promise<string> {
    const asks = this.#looksAt(this.actor(name).did)[inClass]
    const authorization = this.stratos.adminBasic
    const parts = asks.map(async ([nsid, params]) => {
      const response = await xrpcResponse(this.stratos.url, nsid, { params, authorization })
      return await response.bytes()
    })
    const hash = new Bun.SHA256()
    for (const bytes of await Promise.all(parts)) hash.update(bytes)
    return hash.digest('hex')
  }

  /** Whatever else they could change is compared at the end, by the rows of all tables. */
  #looksAt(did: string): Readonly<Record<DoorClass, readonly Ask[]>> {
    const repo: Ask = ['zone.stratos.sync.getRepo', { did }]
    const members: Ask = ['zone.stratos.admin.listMembers', {}]
    const uri = `at://${did}/${postCollection}/${ownRkey}`
    return {
      public: [repo],
      optional: [repo],
      appview: [repo],
      user: [repo],
      session: [members],
      owner: [repo],
      stream: [repo],
      moderation: [
        [getStatus, { uri }],
        [getStatus, { did }],
      ],
      admin: [members],
      page: [members],
      once: [members],
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#webHost[Symbol.asyncDispose]()
    await this.issuer[Symbol.asyncDispose]()
    await this.otherIssuer[Symbol.asyncDispose]()
    await this.stratos.stop()
  }

  /** What no request can bring about. */
  async #seed(): Promise<void> {
    await this.stratos.terminate()
    const { accounts } = this.stratos.directory
    const { did, handle } = this.stratos.person('pat')
    const key = await P256Keypair.create()
    this.#actors.set('pat', { did, key })
    accounts.set(did, { didKey: key.did(), handle })
    for (const name of ['dora', 'dolf', 'lou']) {
      const { did, ...account } = this.stratos.person(name)
      const didKey = account.key.did()
      accounts.set(did, { didKey, handle: account.handle, pds: this.issuer.url })
    }
    const boundaries = [this.stratos.boundary('a')]
    const wes = { did: parseDid(this.#webHost.did), boundaries }
    await seed(this.stratos.dataFolder, this.stratos.did, [wes])
    await this.stored.seedCookies({
      cora: parseDid(this.actor('cora').did),
      cleo: parseDid(this.actor('cleo').did),
    })
  }

  /** Sessions, keys and tokens as callers get them, and what became of some of them. */
  async #begin(): Promise<void> {
    const { stratos, sessions, apps } = this
    for (const name of ['sue', 'sol', 'lou']) sessions.set(name, await beginSession(stratos, name))
    sessions.set('ended', await endedSession(stratos, 'sue'))
    sessions.set('revoked', await beginSession(stratos, 'alice'))
    await this.#operate('zone.stratos.admin.revokeSessions', 'alice')
    for (const name of ['bea', 'lou']) apps.set(`bound ${name}`, await DpopApp.of(stratos, name))
    const unbound = await DpopApp.of(stratos, 'bea')
    apps.set('unbound', unbound)
    const input = { jkt: unbound.key.thumbprint }
    await unbound.call('zone.stratos.server.unbindKey', { input })
    const spare = new DpopApp(stratos, this.spareKey, '')
    await spare.bind(stratos.person('bea'))
    for (const name of ['dora', 'dolf', 'lou']) {
      const key = await AppKey.create()
      const token = await this.issuer.token(this.actor(name).did, key)
      const app = new DpopApp(stratos, key, token)
      apps.set(`published ${name}`, app)
      // The service notes of a member that comes to its eyes where the account lives.
      await app.call('zone.stratos.enrollment.status', { params: { did: this.actor(name).did } })
    }
    this.staleNonce = spare.nonce ?? ''
    await this.#operate('zone.stratos.admin.unenroll', 'lou')
    await eventually('end of a departure', async () => {
      const { body } = await stratos.call('zone.stratos.admin.listOutbox', {
        authorization: stratos.adminBasic,
      })
      const { did } = this.actor('lou')
      return listOf(body, 'actors').every((actor) => actor['did'] !== did) ? true : undefined
    })
  }

  /** Whoever binds a key sweeps those whose time is over, so this one comes last. */
  async #bindLongAgo(): Promise<void> {
    await this.stratos.terminate()
    const overdue = await DpopApp.of(this.stratos, 'bea', 'unbound')
    await this.stored.seedOverdueKey(parseDid(this.actor('bea').did), overdue.key.thumbprint)
    this.apps.set('overdue', overdue)
    await this.stratos.run(this.#settings('listed'))
  }

  async #operate(nsid: string, name: string): Promise<void> {
    const { did } = this.actor(name)
    const call = { input: { did }, authorization: this.stratos.adminBasic }
    const { status } = await this.stratos.call(nsid, call)
    if (status !== 200) throw new Error(`${nsid} answered ${status}`)
  }

  async #write(name: string): Promise<void> {
    const { did } = this.actor(name)
    const authorization = `Bearer ${did}`
    const uploaded = await this.stratos.call('zone.stratos.repo.uploadBlob', {
      body: this.marker,
      headers: { 'content-type': 'image/png' },
      authorization,
    })
    if (uploaded.status !== 200) throw new Error(`the blob of ${name} got ${uploaded.status}`)
    const image = blobRefOf(fieldsOf(uploaded.body, 'blob'))
    const record = picturePost(this.marker, [this.stratos.boundary('a')], image)
    const answer = await this.stratos.call('zone.stratos.repo.createRecord', {
      input: { repo: did, collection: postCollection, rkey: ownRkey, record },
      authorization,
    })
    if (answer.status !== 200) throw new Error(`the record of ${name} got ${answer.status}`)
  }

  #settings(former: 'listed' | 'unlisted'): Record<string, string> {
    const isListed = former === 'listed'
    const views = isListed ? ['view', 'former-view'] : ['view']
    return {
      STRATOS_ALLOWED_APPVIEWS: views.map((name) => this.actor(name).did).join(','),
      STRATOS_MOD_SERVICE_DID: this.actor(isListed ? 'former-mod' : 'mod').did,
      STRATOS_TRUSTED_PROXIES: '127.0.0.1/32',
      STRATOS_SYNC_TOKEN: this.syncSecret,
      // Nothing is to be done in the background that would change what is stored.
      STRATOS_STUBS: 'off',
      LOG_LEVEL: 'debug',
    }
  }
}

/** A did:key of the right length whose x coordinate, 7, belongs to no point of either curve. */
function noPoint(multicodec: readonly number[]): string {
  const x = new Uint8Array(32)
  x[31] = 7
  return `did:key:${base58btc.encode(Uint8Array.from([...multicodec, 2, ...x]))}`
}

function webDocument(
  did: string,
  { wesKey, labelKey }: Readonly<Record<'wesKey' | 'labelKey', Secp256k1Keypair>>,
): object {
  const verificationMethod = [
    method(did, 'atproto_label', labelKey.did()),
    method(did, 'atproto', wesKey.did()),
  ]
  return { ...documentOf(did, { handle: 'wes.test' }), verificationMethod }
}
