import { Secp256k1Keypair } from '@atproto/crypto'
import { postCollection, privatePost } from '../kit/post.ts'
import { type Person, SeededStratos } from '../kit/seeded.ts'
import { Subscriber, streamNsid } from '../kit/subscriber.ts'
import { serviceToken } from '../kit/token.ts'
import { type Answer, textOf } from '../kit/xrpc.ts'

export const syncSecret = `sync-secret-${'x'.repeat(32)}`
export const asSync = `Bearer ${syncSecret}`

type Params = Readonly<Record<string, string | number | boolean>>

/** A service with AppViews of all boundaries and of one, and what tests of its streams do. */
export class Streaming implements AsyncDisposable {
  readonly stratos: SeededStratos
  /** Of all boundaries, and of a alone. */
  readonly ofAll: Person
  readonly ofA: Person

  private constructor(stratos: SeededStratos, ofAll: Person, ofA: Person) {
    this.stratos = stratos
    this.ofAll = ofAll
    this.ofA = ofA
  }

  static async start(
    people: Readonly<Record<string, readonly string[]>>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<Streaming> {
    const stratos = await SeededStratos.start({ people, env: { STRATOS_SYNC_TOKEN: syncSecret } })
    const [ofAll, ofA] = [await appView(stratos, 'of all'), await appView(stratos, 'of a')]
    const streaming = new Streaming(stratos, ofAll, ofA)
    await stratos.terminate()
    await streaming.run(env)
    return streaming
  }

  /** Starts the service again. */
  async run(env: Readonly<Record<string, string>> = {}): Promise<void> {
    const STRATOS_ALLOWED_APPVIEWS = `${this.ofAll.did},${this.ofA.did}=a`
    await this.stratos.run({ STRATOS_ALLOWED_APPVIEWS, ...env })
  }

  did(name: string): string {
    return this.stratos.person(name).did
  }

  /** Of somebody's own repo, by the development bearer. */
  async own(name: string, params: Params = {}): Promise<Subscriber> {
    const { did, bearer } = this.stratos.person(name)
    return await this.open({ did, ...params }, bearer)
  }

  async open(params: Params, authorization: string = asSync): Promise<Subscriber> {
    return await Subscriber.open(this.stratos.url, { params, authorization })
  }

  async token(person: Person, lxm: string = streamNsid): Promise<string> {
    const claims = { jti: crypto.randomUUID() }
    return `Bearer ${await serviceToken(person, { aud: this.stratos.did, lxm }, { claims })}`
  }

  /** All commits of everybody, from where the reader says that they are. */
  async following(
    cursors: Readonly<Record<string, number>> = {},
    authorization: string = asSync,
  ): Promise<Subscriber> {
    const subscriber = await this.open({ commits: true }, authorization)
    subscriber.say({ cursors, more: false })
    return subscriber
  }

  async write(name: string, rkey: string, over: { text?: string; in?: readonly string[] } = {}) {
    const { text = rkey, in: bare = ['a'] } = over
    const record = privatePost(
      text,
      bare.map((one) => this.stratos.boundary(one)),
    )
    return await this.#repo(name, 'putRecord', { rkey, record })
  }

  async remove(name: string, rkey: string) {
    return await this.#repo(name, 'deleteRecord', { rkey })
  }

  /** Several writes as one commit. */
  async apply(name: string, writes: readonly object[]) {
    return await this.#repo(name, 'applyWrites', { writes })
  }

  async leave(name: string): Promise<void> {
    const nsid = 'zone.stratos.enrollment.unenroll'
    ok(await this.stratos.callAs(name, nsid, { verb: 'POST' }))
  }

  async listOps(params: Params, authorization: string = asSync): Promise<Answer> {
    const nsid = 'zone.stratos.sync.listRepoOps'
    return await this.stratos.call(nsid, { params, authorization })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stratos.stop()
  }

  async #repo(name: string, method: string, input: Readonly<Record<string, unknown>>) {
    const base = { repo: this.did(name), collection: postCollection }
    const call = { input: { ...base, ...input } }
    return ok(await this.stratos.callAs(name, `zone.stratos.repo.${method}`, call))
  }
}

function ok(answer: Answer): Answer['body'] {
  if (answer.status === 200) return answer.body
  throw new Error(`it answered ${answer.status} ${JSON.stringify(answer.body)}`)
}

export function refOf(body: Answer['body']) {
  return { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
}

/** `create rkey +` where a record came along. */
export function opsOf(subscriber: Subscriber): string[] {
  return subscriber.commits.flatMap(({ ops }) =>
    ops.map(({ action, path, record }) => {
      const rkey = path.slice(path.indexOf('/') + 1)
      return `${action} ${rkey}${record === undefined ? '' : ' +'}`
    }),
  )
}

/** What `opsOf` gives, once it is so many. */
export async function opsAfter(subscriber: Subscriber, count: number): Promise<string[]> {
  return await subscriber.until(`${count} operations`, () => {
    const ops = opsOf(subscriber)
    return ops.length >= count ? ops : undefined
  })
}

async function appView(stratos: SeededStratos, handle: string): Promise<Person> {
  const key = await Secp256k1Keypair.create()
  const did = stratos.directory.add({ didKey: key.did() })
  return { did, handle, key, bearer: `Bearer ${did}` }
}
