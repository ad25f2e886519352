import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { Followed } from '../indexer/followed.ts'
import { Streaming } from '../api/stream-readers.ts'
import { Child } from '../kit/child.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { isReady, projectFolder } from '../kit/seeded.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf, xrpc } from '../kit/xrpc.ts'
import { AccessLedger, type Outcome } from './access-ledger.ts'
import type { Dice } from './dice.ts'

const names = ['p0', 'p1', 'p2', 'p3']
const bare = ['a', 'b', 'c']
const keysOfPerson = 6
const pauseMs = { write: 15, membership: 250, read: 10 }

/** A post that an answer had, and when that was asked for and came. */
interface Shown {
  readonly uri: string
  readonly viewer: string
  /** Of the method. */
  readonly lxm: string
  readonly fromMs: number
  readonly toMs: number
}

/** Service, indexer, AppView and PostgreSQL as processes of their own, and what people do to them. */
export class FeedChaos implements AsyncDisposable {
  readonly #dice: Dice
  readonly #streaming: Streaming
  readonly #server: PostgresServer
  readonly #followed: Followed
  readonly #folder = mkdtempSync(join(tmpdir(), 'stratos-feeds-'))
  readonly #key = ServiceKey.generate()
  readonly #ports: { readonly indexer: number; readonly appView: number }
  readonly #ledger = new AccessLedger()
  readonly #shown: Shown[] = []
  readonly #uris = new Map<string, string>()
  #indexer: Child | undefined
  #appView: Child | undefined
  readonly #answers = new Map<string, number>()
  #changes = 0

  private constructor(
    dice: Dice,
    parts: {
      readonly streaming: Streaming
      readonly server: PostgresServer
      readonly followed: Followed
      readonly ports: { readonly indexer: number; readonly appView: number }
    },
  ) {
    this.#dice = dice
    this.#streaming = parts.streaming
    this.#server = parts.server
    this.#followed = parts.followed
    this.#ports = parts.ports
  }

  static async start(dice: Dice): Promise<FeedChaos> {
    const server = await PostgresServer.start()
    const streaming = await Streaming.start(Object.fromEntries(names.map((name) => [name, bare])))
    const followed = await Followed.open(streaming, names, server)
    const ports = { indexer: await freePort(), appView: await freePort() }
    const chaos = new FeedChaos(dice, { streaming, server, followed, ports })
    for (const name of names) chaos.#ledger.viewer(streaming.did(name), bare)
    await streaming.stratos.terminate()
    await chaos.#runService()
    // The AppView has the document by which the service knows the indexer.
    await chaos.#runAppView()
    await chaos.#runIndexer()
    return chaos
  }

  get counts() {
    return { shown: this.#shown.length, changes: this.#changes, answers: this.#answers }
  }

  /** Writes, changes of membership and reads until it is stopped. */
  load(): { stop(): Promise<void> } {
    const stopped = new AbortController()
    const often = async (ms: number, task: () => Promise<void>) => {
      while (!stopped.signal.aborted) {
        await task()
        await Bun.sleep(ms)
      }
    }
    const all = [
      ...names.map((name) => often(pauseMs.write, () => this.#write(name))),
      often(pauseMs.membership, () => this.#changeMembership()),
      ...names.map((name) => often(pauseMs.read, () => this.#read(name))),
    ]
    return {
      stop: async () => {
        stopped.abort()
        await Promise.all(all)
      },
    }
  }

  /** Kills one of them, and starts it again after a while. */
  async killed(victim: 'service' | 'indexer' | 'postgres', awayMs: number): Promise<void> {
    if (victim === 'service') await this.#streaming.stratos.kill()
    if (victim === 'indexer') await this.#indexer?.kill()
    if (victim === 'postgres') await this.#server.kill()
    await Bun.sleep(awayMs)
    if (victim === 'service') await this.#runService()
    if (victim === 'indexer') await this.#runIndexer()
    if (victim === 'postgres') await this.#server.restart()
  }

  /** Posts that were shown to somebody who may not have seen them at any time of the last while. */
  late(graceMs: number): readonly object[] {
    return this.#shown
      .filter(({ uri, viewer, fromMs, toMs }) => {
        return !this.#ledger.mayHaveSeen(uri, viewer, { from: fromMs - graceMs, to: toMs })
      })
      .map((shown) => [shown, this.#ledger.about(shown.uri, shown.viewer, shown.fromMs)])
  }

  /** What the processes logged last. */
  get log(): string {
    return [this.#indexer?.output, this.#appView?.output].join('\n')
  }

  async same(): Promise<void> {
    await this.#followed.same()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#indexer?.stop()
    await this.#appView?.stop()
    await this.#followed[Symbol.asyncDispose]()
    await this.#streaming[Symbol.asyncDispose]()
    await this.#server[Symbol.asyncDispose]()
    rmSync(this.#folder, { recursive: true, force: true })
  }

  get #appViewDid(): string {
    return `did:web:localhost%3A${this.#ports.appView}`
  }

  async #runService(): Promise<void> {
    await this.#streaming.stratos.run({
      STRATOS_ALLOWED_APPVIEWS: `${this.#appViewDid},${this.#streaming.ofAll.did}`,
    })
  }

  async #runIndexer(): Promise<void> {
    this.#indexer = await this.#run('index', this.#ports.indexer)
  }

  async #runAppView(): Promise<void> {
    this.#appView = await this.#run('appview', this.#ports.appView)
  }

  async #run(command: 'index' | 'appview', port: number): Promise<Child> {
    const { stratos } = this.#streaming
    const child = new Child({
      command: [process.execPath, 'src/main.ts', command],
      cwd: projectFolder,
      env: {
        STRATOS_PORT: String(port),
        STRATOS_DATA_DIR: join(this.#folder, command),
        STRATOS_SERVICE_DID: this.#appViewDid,
        STRATOS_SIGNING_KEY_HEX: this.#key.exportHex(),
        STRATOS_PLC_URL: stratos.directory.url,
        STRATOS_HANDLE_RESOLVER_URL: stratos.handlesUrl,
        STRATOS_ALLOW_PRIVATE_NETWORK: 'true',
        STRATOS_INDEX_POSTGRES_URL: this.#followed.url,
        ...(command === 'index' ? { STRATOS_INDEX_SERVICES: `${stratos.did}=${stratos.url}` } : {}),
      },
    })
    await eventually(`ready ${command}`, () => isReady(`http://localhost:${port}`, child))
    return child
  }

  async #write(name: string): Promise<void> {
    const dice = this.#dice
    const did = this.#streaming.did(name)
    const rkey = `k${dice.below(keysOfPerson)}`
    const uri = `at://${did}/${postCollection}/${rkey}`
    this.#uris.set(uri, did)
    const base = { repo: did, collection: postCollection, rkey }
    if (dice.oneIn(4)) {
      await this.#change({ post: uri }, [], name, { method: 'deleteRecord', input: base })
      return
    }
    const boundaries = bare
      .filter(() => dice.oneIn(2))
      .map((one) => this.#streaming.stratos.boundary(one))
    if (boundaries.length === 0) return
    const record = privatePost(`${dice.below(1_000_000)}`, boundaries)
    const plain = boundaries.map((one) => one.split('/').at(-1) ?? '')
    await this.#change({ post: uri }, plain, name, {
      method: 'putRecord',
      input: { ...base, record },
    })
  }

  async #change(
    of: { readonly post: string },
    boundaries: readonly string[],
    name: string,
    call: { readonly method: string; readonly input: Readonly<Record<string, unknown>> },
  ): Promise<void> {
    const { stratos } = this.#streaming
    const nsid = `zone.stratos.repo.${call.method}`
    const task = () => answered(() => stratos.callAs(name, nsid, { input: call.input }))
    const outcome = await this.#ledger.change(of, boundaries, task)
    if (outcome === 'done') this.#changes += 1
  }

  async #changeMembership(): Promise<void> {
    const { stratos } = this.#streaming
    const name = this.#dice.one(names)
    const kept = bare.filter(() => this.#dice.oneIn(2))
    const input = {
      did: stratos.person(name).did,
      boundaries: kept.map((one) => stratos.boundary(one)),
    }
    const call = { input, authorization: stratos.adminBasic }
    await this.#ledger.change({ viewer: input.did }, kept, () =>
      answered(() => stratos.call('zone.stratos.admin.setBoundaries', call)),
    )
  }

  async #read(name: string): Promise<void> {
    const person = this.#streaming.stratos.person(name)
    const { lxm, params } = this.#asked()
    const token = await serviceToken(person, { aud: this.#appViewDid, lxm })
    const fromMs = Date.now()
    const authorization = `Bearer ${token}`
    const answer = await xrpc(`http://localhost:${this.#ports.appView}`, lxm, {
      params,
      authorization,
    })
    const toMs = Date.now()
    const said = answer.status === 200 ? 'shown' : textOf(answer.body, 'error')
    this.#answers.set(said, (this.#answers.get(said) ?? 0) + 1)
    if (answer.status === 503) return
    for (const uri of urisIn(answer)) {
      // What somebody wrote is no secret to them.
      if (this.#uris.get(uri) !== person.did)
        this.#shown.push({ uri, viewer: person.did, lxm, fromMs, toMs })
    }
  }

  #asked() {
    const uri = [...this.#uris.keys()][this.#dice.below(Math.max(1, this.#uris.size))]
    const kind = uri === undefined ? 0 : this.#dice.below(4)
    const feed = 'zone.stratos.feed'
    if (kind === 1) return { lxm: `${feed}.getPost`, params: { uri: uri ?? '' } }
    if (kind === 2) return { lxm: `${feed}.getPostThread`, params: { uri: uri ?? '' } }
    if (kind === 3)
      return { lxm: `${feed}.getAuthorFeed`, params: { actor: this.#uris.get(uri ?? '') ?? '' } }
    return { lxm: `${feed}.getTimeline`, params: { limit: 100 } }
  }
}

/** Of posts alone, wherever in an answer they stand. */
function urisIn({ status, body }: Answer): string[] {
  if (status === 404) return []
  if (status !== 200) throw new Error(`a feed answered ${status} ${JSON.stringify(body)}`)
  if ('thread' in body) {
    const thread = fieldsOf(body, 'thread')
    return 'post' in thread ? [textOf(fieldsOf(thread, 'post'), 'uri')] : []
  }
  const items = 'feed' in body ? listOf(body, 'feed') : [fieldsOf(body, 'post')]
  return items.map((item) => textOf(fieldsOf(item, 'post'), 'uri'))
}

async function answered(call: () => Promise<Answer>): Promise<Outcome> {
  try {
    const { status } = await call()
    if (status === 200) return 'done'
    // It may have failed after it was done.
    return status >= 500 ? 'unanswered' : 'refused'
  } catch (error) {
    if (error instanceof TypeError || (error instanceof Error && 'code' in error))
      return 'unanswered'
    throw error
  }
}
