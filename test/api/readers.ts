import { Secp256k1Keypair } from '@atproto/crypto'
import { expect } from 'bun:test'
import { exactAnswer } from '../kit/exact.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { type Person, SeededStratos } from '../kit/seeded.ts'
import { recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken, type TokenOptions } from '../kit/token.ts'
import { type Answer, type Call, textOf } from '../kit/xrpc.ts'

/** Each AppView, and which records of alice's it finds. `erin` is enrolled, too, in a and b. */
export const appViews = [
  { name: 'all', grant: '', finds: ['in-a', 'in-b', 'in-both'] },
  { name: 'of-a', grant: '=a', finds: ['in-a', 'in-both'] },
  { name: 'of-b', grant: '=b', finds: ['in-b', 'in-both'] },
  { name: 'of-c', grant: '=c', finds: [] },
  { name: 'of-each', grant: '=a|b|c', finds: ['in-a', 'in-b', 'in-both'] },
  { name: 'moderator', grant: '=c', finds: [] },
  { name: 'erin', grant: '=a', finds: ['in-a', 'in-both'] },
] as const

interface Ref {
  readonly uri: string
  readonly cid: string
}

/** More people, and what they do before anything is taken down or lost. */
interface More {
  readonly people: Readonly<Record<string, readonly string[]>>
  prepare(readers: Readers): Promise<void>
}

const nothingMore: More = { people: {}, prepare: async () => undefined }

/**
 * A service that lets AppViews read. Of its people alice wrote most, ivy is inactive, tom's repo
 * and one record of alice's are taken down, and the boundary d, in which alice wrote, is no more.
 */
export class Readers {
  readonly stratos: SeededStratos
  readonly #appViews = new Map<string, Person>()
  readonly #refs = new Map<string, Ref>()
  readonly #names: readonly string[]

  private constructor(stratos: SeededStratos, names: readonly string[]) {
    this.stratos = stratos
    this.#names = names
  }

  static async start(more: More = nothingMore): Promise<Readers> {
    const both = ['a', 'b']
    const people = {
      alice: [...both, 'd'],
      bob: ['a'],
      carol: ['c'],
      dave: [],
      ivy: both,
      tom: both,
      erin: both,
      ...more.people,
    }
    const stratos = await SeededStratos.start({
      people,
      env: { STRATOS_ALLOWED_DOMAINS: 'a,b,c,d' },
    })
    const readers = new Readers(stratos, Object.keys(people))
    await readers.write('alice', 'in-a', ['a'])
    await readers.write('alice', 'in-b', ['b'])
    await readers.write('alice', 'in-both', both)
    await readers.write('alice', 'in-lost', ['d'])
    const taken = await readers.write('alice', 'taken', both)
    await readers.write('ivy', 'of-ivy', both)
    await readers.write('tom', 'of-tom', both)
    await readers.write('erin', 'of-erin', ['b'])
    const uri = `at://${stratos.person('stranger').did}/${postCollection}/of-nobody`
    readers.#refs.set('of-nobody', { uri, cid: taken.cid })
    await more.prepare(readers)
    await setTakedown(stratos, recordSubject(taken), { applied: true })
    await setTakedown(stratos, repoSubject(stratos.person('tom').did), { applied: true })
    for (const { name } of appViews) await readers.#add(name)
    await readers.restart()
    return readers
  }

  /** With the same settings and `env`, after work on the data of the service that is stopped. */
  async restart(
    env: Readonly<Record<string, string>> = {},
    between: () => void = () => {},
  ): Promise<void> {
    await this.stratos.terminate()
    between()
    await this.stratos.run({ ...this.#settings(), ...env })
  }

  /** Of somebody of the service or an AppView by a token, of the operator, or of nobody. */
  async credential(name: string, nsid: string): Promise<string | undefined> {
    if (name === 'anonymous') return undefined
    return name === 'admin' ? this.stratos.adminBasic : await this.token(name, nsid)
  }

  /** Of an AppView, or of somebody of the service. */
  person(name: string): Person {
    return this.#appViews.get(name) ?? this.stratos.person(name)
  }

  /** A record by its key. */
  ref(rkey: string): Ref {
    const found = this.#refs.get(rkey)
    if (found === undefined) throw new Error(`there is no record ${rkey}`)
    return found
  }

  async token(name: string, lxm: string, options: TokenOptions = {}): Promise<string> {
    const claims = { jti: crypto.randomUUID(), ...options.claims }
    const door = { aud: this.stratos.did, lxm }
    return `Bearer ${await serviceToken(this.person(name), door, { ...options, claims })}`
  }

  async ask(name: string, nsid: string, call: Call): Promise<Answer> {
    return this.stratos.call(nsid, { ...call, authorization: await this.credential(name, nsid) })
  }

  async exact(name: string, nsid: string, call: Call): Promise<string> {
    const authorization = await this.credential(name, nsid)
    return exactAnswer(this.stratos.url, nsid, { ...call, authorization })
  }

  /** The record is answered, byte for byte, as another would be that does not exist. */
  async expectMissing(
    name: string,
    nsid: string,
    params: { readonly rkey: string } & Readonly<Record<string, string>>,
  ): Promise<void> {
    const other = 'x'.repeat(params.rkey.length)
    const missing = await this.exact(name, nsid, { params: { ...params, rkey: other } })
    expect(missing).toContain('HTTP 404')
    const answer = await this.exact(name, nsid, { params })
    expect(answer).toBe(missing.replaceAll(other, params.rkey))
  }

  /** Of ivy and of tom the answer is that of somebody who never enrolled. */
  async expectLikeNobody(name: string, nsid: string, call: (did: string) => Call): Promise<void> {
    const { did: nobody } = this.stratos.person('stranger')
    const never = await this.exact(name, nsid, call(nobody))
    expect(never).toContain('HTTP 404')
    for (const who of ['ivy', 'tom']) {
      const { did } = this.stratos.person(who)
      expect((await this.exact(name, nsid, call(did))).replaceAll(did, nobody)).toBe(never)
    }
  }

  async write(name: string, rkey: string, bare: readonly string[]): Promise<Ref> {
    const boundaries = bare.map((one) => this.stratos.boundary(one))
    const record = privatePost(`the post ${rkey}`, boundaries)
    const input = { repo: this.stratos.person(name).did, collection: postCollection, rkey, record }
    const { body } = await this.stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
    const written = { uri: textOf(body, 'uri'), cid: textOf(body, 'cid') }
    this.#refs.set(rkey, written)
    return written
  }

  async #add(name: string): Promise<void> {
    if (name === 'erin') return
    const key = await Secp256k1Keypair.create()
    const did = this.stratos.directory.add({ didKey: key.did() })
    this.#appViews.set(name, { did, handle: '', key, bearer: `Bearer ${did}` })
  }

  #settings(): Record<string, string> {
    const listed = appViews.map(({ name, grant }) => `${this.person(name).did}${grant}`)
    const names = this.#names.filter((name) => name !== 'ivy')
    return {
      STRATOS_ALLOWED_DOMAINS: 'a,b,c',
      STRATOS_ALLOWED_APPVIEWS: listed.join(','),
      STRATOS_MOD_SERVICE_DID: this.person('moderator').did,
      STRATOS_ALLOWED_DIDS: names.map((name) => this.person(name).did).join(','),
      STRATOS_ALLOWLIST_ENFORCE: 'continuous',
    }
  }
}
