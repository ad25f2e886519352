import { rm } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

import { installNetwork, nodeCommand } from '../network/install.ts'
import { Child } from './child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { type Answer, isFields, listOf, textOf, xrpc } from './xrpc.ts'

/** An account on the development PDS, with a session of it. */
export interface Account {
  readonly did: string
  readonly handle: string
  readonly password: string
  readonly accessJwt: string
  readonly pdsUrl: string
}

/** A record as the PDS shows it to everybody. */
export interface PublicRecord {
  readonly uri: string
  readonly cid: string
  readonly value: Readonly<Record<string, unknown>>
}

const folder = fileURLToPath(new URL('../network/', import.meta.url))
/** Loading the PDS takes two seconds on an idle machine. */
const startMs = 60_000

/**
 * A PLC directory and a PDS, each a process of its own, on loopback. Accounts live as long as it
 * does; the PDS alone may be killed and started again on the same data and port.
 */
export class Network implements AsyncDisposable {
  readonly plcUrl: string
  readonly pdsUrl: string
  readonly #commands: Commands
  /** None where another network has the directory. */
  readonly #plc: Child | undefined
  #pds: Child
  /** The folder of its data. */
  readonly pdsData: string

  private constructor(commands: Commands, plc: Running, pds: Running & { readonly child: Child }) {
    this.#commands = commands
    this.#plc = plc.child
    this.#pds = pds.child
    this.pdsData = textOf(pds.facts, 'data')
    this.plcUrl = textOf(plc.facts, 'url')
    this.pdsUrl = textOf(pds.facts, 'url')
  }

  /**
   * Installs the packages first when they are missing.
   * @param web a site that the PDS finds on loopback
   */
  static async start(web?: WebSite): Promise<Network> {
    await installNetwork()
    const commands = new Commands(await nodeCommand(), web)
    const plcPort = await freePort()
    const plc = commands.plc(plcPort)
    const pds = commands.pds(`http://127.0.0.1:${plcPort}`)
    try {
      return new Network(commands, await running(plc), await running(pds))
    } catch (cause) {
      await Promise.all([plc.kill(), pds.kill()])
      throw new Error('the development network did not start', { cause })
    }
  }

  /** Another PDS on the same directory, to be stopped before this one. */
  async another(): Promise<Network> {
    const pds = this.#commands.pds(this.plcUrl)
    return new Network(
      this.#commands,
      { child: undefined, facts: { url: this.plcUrl } },
      await running(pds),
    )
  }

  /** @param name becomes the handle `{name}.test`; at least three letters */
  async createAccount(name: string): Promise<Account> {
    const handle = `${name}.test`
    const password = crypto.randomUUID()
    const input = { handle, password, email: `${name}@mail.test` }
    const { body } = expectOk(
      await xrpc(this.pdsUrl, 'com.atproto.server.createAccount', { input }),
    )
    const [did, accessJwt] = [textOf(body, 'did'), textOf(body, 'accessJwt')]
    return { handle, password, did, accessJwt, pdsUrl: this.pdsUrl }
  }

  /** A service-auth token, asked for as any client of the account would. */
  async serviceAuth(account: Account, claims: ServiceAuthClaims): Promise<string> {
    const { body } = expectOk(
      await xrpc(account.pdsUrl, 'com.atproto.server.getServiceAuth', {
        params: { ...claims },
        authorization: `Bearer ${account.accessJwt}`,
      }),
    )
    return textOf(body, 'token')
  }

  /** A record in the public repo, read without credentials. */
  async getRecord(at: RecordAddress): Promise<PublicRecord | undefined> {
    const answer = await xrpc(this.pdsUrl, 'com.atproto.repo.getRecord', { params: { ...at } })
    if (answer.body['error'] === 'RecordNotFound') return undefined
    return publicRecord(expectOk(answer).body)
  }

  /** Up to 100 records of a public collection, newest first. */
  async listRecords(repo: string, collection: string): Promise<PublicRecord[]> {
    const params = { repo, collection, limit: 100 }
    const answer = await xrpc(this.pdsUrl, 'com.atproto.repo.listRecords', { params })
    return listOf(expectOk(answer).body, 'records').map(publicRecord)
  }

  /** Ends the PDS by `kill -9`; connections to it are then refused. */
  async killPds(): Promise<void> {
    await this.#pds.kill()
  }

  /** Starts it again after `killPds`, on the same data and port. */
  async restartPds(): Promise<void> {
    const port = new URL(this.pdsUrl).port
    this.#pds = this.#commands.pds(this.plcUrl, '--port', port, '--resume', this.pdsData)
    await running(this.#pds)
  }

  /** From now on the PDS writes into repos as it is asked to, but nobody gets an answer. */
  async mutePds(): Promise<void> {
    await this.#pds.tell('mute')
  }

  async unmutePds(): Promise<void> {
    await this.#pds.tell('speak')
  }

  async stop(): Promise<void> {
    await Promise.all([this.#pds.stop(), this.#plc?.stop()])
    // A PDS that ends in order has done so; a killed one could not.
    await rm(this.pdsData, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** `aud` is a service's DID; `exp` is in seconds since 1970, a minute ahead when absent. */
export interface ServiceAuthClaims {
  readonly aud: string
  readonly lxm: string
  readonly exp?: number
}

export interface RecordAddress {
  readonly repo: string
  readonly collection: string
  readonly rkey: string
}

/** What the PDS takes for the web: a name that is found on loopback, and its certificate. */
export interface WebSite {
  readonly name: string
  readonly certificatePath: string
}

interface Running {
  readonly child: Child | undefined
  readonly facts: Readonly<Record<string, unknown>>
}

class Commands {
  readonly #node: string
  readonly #web: WebSite | undefined

  constructor(node: string, web: WebSite | undefined) {
    this.#node = node
    this.#web = web
  }

  plc(port: number): Child {
    return this.#spawn(['plc.mjs', '--port', `${port}`])
  }

  pds(plcUrl: string, ...rest: readonly string[]): Child {
    const web = this.#web === undefined ? [] : ['--web', this.#web.name]
    // It looks nobody up at a bare address.
    const plc = plcUrl.replace('127.0.0.1', 'localhost')
    return this.#spawn(['pds.mjs', '--plc', plc, ...web, ...rest])
  }

  #spawn(command: readonly string[]): Child {
    const trusted = this.#web?.certificatePath
    return new Child({
      command: [this.#node, '--disable-warning=ExperimentalWarning', ...command],
      cwd: folder,
      env: trusted === undefined ? {} : { NODE_EXTRA_CA_CERTS: trusted },
      watchesStdin: true,
    })
  }
}

async function running(child: Child): Promise<Running & { readonly child: Child }> {
  const facts: unknown = JSON.parse(await child.firstLine(startMs))
  if (!isFields(facts)) throw new Error(`it announced no facts: ${child.output}`)
  return { child, facts }
}

function expectOk(answer: Answer): Answer {
  if (answer.status === 200) return answer
  throw new Error(`the PDS answered ${answer.status} ${JSON.stringify(answer.body)}`)
}

function publicRecord(fields: Readonly<Record<string, unknown>>): PublicRecord {
  const value = fields['value']
  if (!isFields(value)) throw new Error(`expected a record: ${JSON.stringify(fields)}`)
  return { uri: textOf(fields, 'uri'), cid: textOf(fields, 'cid'), value }
}
