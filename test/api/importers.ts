import { expect } from 'bun:test'
import { readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { dumpOf } from '../bulk/dump.ts'
import { pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { carType, importRepo, withCar } from '../kit/import.ts'
import { privatePost } from '../kit/post.ts'
import type { Refusal } from '../kit/refusal.ts'
import { SeededStratos, type SeededOptions } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import type { Answer, Call } from '../kit/xrpc.ts'

interface Begun {
  readonly socket: Socket
  /** The first that comes back. */
  readonly answered: Promise<string>
}

/** A service, and people who bring repos to it. */
export class Importers implements AsyncDisposable {
  readonly stratos: SeededStratos

  private constructor(stratos: SeededStratos) {
    this.stratos = stratos
  }

  static async start(options: SeededOptions): Promise<Importers> {
    return new Importers(await SeededStratos.start(options))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stratos.stop()
  }

  did(name: string) {
    return this.stratos.person(name).did
  }

  /** A repo of somebody as another service has it, with these records. */
  repo(name: string, records: Readonly<Record<string, unknown>> = {}): ForeignRepo {
    return new ForeignRepo(this.did(name), records)
  }

  /** One with plain posts of these keys, in the boundary a. */
  repoOf(name: string, ...rkeys: readonly string[]): ForeignRepo {
    const posts = rkeys.map((rkey) => [pathOf(rkey), this.post(rkey)] as const)
    return this.repo(name, Object.fromEntries(posts))
  }

  /** A post in the boundary a, unless `over` says otherwise. */
  post(text: string, over: Readonly<Record<string, unknown>> = {}) {
    return { ...privatePost(text, [this.stratos.boundary('a')]), ...over }
  }

  import(name: string, repo: ForeignRepo, call: Call = {}): Promise<Answer> {
    return this.send(name, repo.car(), call)
  }

  send(name: string, car: Bun.BodyInit, call: Call = {}): Promise<Answer> {
    return this.stratos.callAs(name, importRepo, withCar(car, call))
  }

  /** An import of `bytes`, of which only a part has come so far. */
  async begin(name: string, bytes: number, part: Uint8Array): Promise<Begun> {
    const before = this.uploads().length
    const socket = connect({ port: this.stratos.port, host: '127.0.0.1' })
    const answered = Promise.withResolvers<string>()
    socket.on('data', (answer) => answered.resolve(String(answer)))
    socket.on('error', (error) => answered.reject(error))
    // Not everybody waits for it.
    answered.promise.catch(() => undefined)
    socket.write(this.head(name, bytes))
    socket.write(part)
    await eventually('upload', () => (this.uploads().length > before ? true : undefined), {
      everyMs: 5,
    })
    return { socket, answered: answered.promise }
  }

  /** The head of a request whose body has so many bytes. */
  head(name: string, bytes: number): string {
    const lines = [
      `POST /xrpc/${importRepo} HTTP/1.1`,
      'Host: localhost',
      `Authorization: ${this.stratos.person(name).bearer}`,
      `Content-Type: ${carType}`,
      `Content-Length: ${bytes}`,
    ]
    return `${lines.join('\r\n')}\r\n\r\n`
  }

  /** What is refused leaves repo and database as they were, and nothing of the body. */
  async expectRefused(
    name: string,
    [status, error]: Refusal,
    ask: () => Promise<Answer>,
  ): Promise<Answer> {
    const before = await this.#present(name)
    const answer = await ask()
    expect(answer).toMatchObject({ status, body: { error } })
    expect(answer.body['message']).toBeString()
    expect(await this.#present(name)).toEqual(before)
    return answer
  }

  /** Names of what is kept of bodies. */
  uploads(): string[] {
    return readdirSync(join(this.stratos.dataFolder, 'imports'))
  }

  async #present(name: string) {
    const repos = await this.stratos.snapshot()
    const database = join(this.folder(name), 'stratos.sqlite')
    return { repos, database: dumpOf(database), uploads: this.uploads() }
  }

  /** Of everything that somebody has here. */
  folder(name: string): string {
    return actorFolder(this.stratos.dataFolder, this.did(name))
  }
}
