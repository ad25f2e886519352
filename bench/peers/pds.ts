import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { Child, endWithUs } from '../../test/kit/child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { fieldsOf, isFields, textOf, xrpc } from '../../test/kit/xrpc.ts'
import { installNetwork, nodeCommand } from '../../test/network/install.ts'
import { diskBytes, residentMb } from '../kit/process.ts'
import type { Exporter } from '../kit/verify.ts'
import { postText, type WriteTarget } from '../kit/write-plans.ts'
import { installPeers, peersFolder } from './install.ts'

const networkFolder = fileURLToPath(new URL('../../test/network/', import.meta.url))
/** Loading the PDS takes two seconds on an idle machine. */
const startMs = 60_000

/** An official PDS with a directory of its own, and people with sessions there. */
export class Pds implements AsyncDisposable {
  readonly port: number
  readonly #plcUrl: string
  readonly #dataDir: string
  readonly #children: readonly Child[]
  readonly #pid: number
  readonly #tokens = new Map<Did, string>()
  readonly #forget: () => void

  private constructor(parts: {
    readonly port: number
    readonly plcUrl: string
    readonly dataDir: string
    readonly plc: Child
    readonly pds: Child
  }) {
    this.port = parts.port
    this.#plcUrl = parts.plcUrl
    this.#dataDir = parts.dataDir
    this.#children = [parts.pds, parts.plc]
    this.#pid = parts.pds.pid
    this.#forget = endWithUs(() => rmSync(parts.dataDir, { recursive: true, force: true }))
  }

  /** Installs the packages first where they are missing. */
  static async start(): Promise<Pds> {
    await installNetwork()
    const [node, plcNode] = [await installPeers(), await nodeCommand()]
    const [port, plcPort] = [await freePort(), await freePort()]
    const plcUrl = `http://localhost:${plcPort}`
    const dataDir = await mkdtemp(join(tmpdir(), 'stratos-peer-'))
    const run = (cwd: string, command: readonly string[]) =>
      new Child({ command, cwd, watchesStdin: true })
    const plc = run(networkFolder, [plcNode, 'plc.mjs', '--port', `${plcPort}`])
    const place = ['--port', `${port}`, '--data', dataDir, '--plc', plcUrl]
    const pds = run(peersFolder, [node, 'pds.mjs', ...place])
    const started = new Pds({ port, plcUrl, dataDir, plc, pds })
    try {
      await Promise.all([plc.firstLine(startMs), pds.firstLine(startMs)])
      return started
    } catch (error) {
      await started[Symbol.asyncDispose]()
      throw error
    }
  }

  get url(): string {
    return `http://localhost:${this.port}`
  }

  get pid(): number {
    return this.#pid
  }

  residentMb(): number {
    return residentMb(this.#pid)
  }

  async diskBytes(): Promise<number> {
    return await diskBytes(this.#dataDir)
  }

  /** @param name becomes the handle `{name}.test` */
  async createAccount(name: string): Promise<Did> {
    const { status, body } = await xrpc(this.url, 'com.atproto.server.createAccount', {
      input: {
        handle: `${name}.test`,
        email: `${name}@mail.test`,
        password: crypto.randomUUID(),
      },
    })
    if (status !== 200) throw new Error(`createAccount: ${status} ${JSON.stringify(body)}`)
    const did = parseDid(textOf(body, 'did'))
    this.#tokens.set(did, textOf(body, 'accessJwt'))
    return did
  }

  /** The same small post as ours, but for the boundary. */
  get target(): WriteTarget {
    const collection = 'app.bsky.feed.post'
    return {
      methods: 'com.atproto.repo',
      collection,
      headersOf: (did) => this.#headersOf(did),
      record: {
        $type: collection,
        text: postText,
        createdAt: new Date().toISOString(),
        langs: ['en'],
      },
    }
  }

  get exporter(): Exporter {
    return {
      url: this.url,
      method: 'com.atproto.sync.getRepo',
      headersOf: () => ({}),
      signingKeyOf: async (did) => {
        const data: unknown = await (await fetch(`${this.#plcUrl}/${did}/data`)).json()
        if (!isFields(data)) throw new Error(`the directory does not know ${did}`)
        return textOf(fieldsOf(data, 'verificationMethods'), 'atproto')
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#children.map((child) => child.stop()))
    await rm(this.#dataDir, { recursive: true, force: true })
    this.#forget()
  }

  #headersOf(did: Did): Record<string, string> {
    return { Authorization: `Bearer ${this.#tokens.get(did)}` }
  }
}
