import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { encode } from '../../src/atproto/cbor.ts'
import { checkDataObject } from '../../src/atproto/data.ts'
import { isFields } from '../kit/xrpc.ts'

/** A call as it arrived, in the words of the tests: `put alice/one on null`. */
export interface PdsCall {
  readonly method: 'put' | 'delete' | 'get'
  readonly repo: string
  readonly rkey: string
  /** As JSON; absent where anything may stand there. */
  readonly swap?: string
}

interface Stored {
  readonly cid: string
  readonly value: object
}

/** Somebody's PDS on loopback, as far as records are read and written, with swaps as a PDS has them. */
export class PdsServer implements AsyncDisposable {
  readonly calls: PdsCall[] = []
  /** Looks at a call before it does anything; a response is the answer, and nothing happens. */
  before: (call: PdsCall) => Response | undefined | Promise<Response | undefined> = () => undefined
  readonly #records = new Map<string, Stored>()
  readonly #server: Bun.Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: (request) => this.#answer(request),
    })
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`
  }

  /** What stands at a key of the posts, or of another collection. */
  at(repo: string, rkey: string, collection = posts): object | undefined {
    return this.#records.get(`${repo}/${collection}/${rkey}`)?.value
  }

  /** Writes as the person does, or another program of theirs. @returns the CID */
  place(repo: string, rkey: string, value: object, collection = posts): string {
    checkDataObject(value)
    const cid = cidToString(cidForCbor(encode(value)))
    this.#records.set(`${repo}/${collection}/${rkey}`, { cid, value })
    return cid
  }

  /** Keys of all that stands in somebody's repo. */
  keysOf(repo: string): string[] {
    const own = [...this.#records.keys()].filter((key) => key.startsWith(`${repo}/`))
    return own.map((key) => key.slice(repo.length + 1)).toSorted()
  }

  remove(repo: string, rkey: string, collection = posts): void {
    this.#records.delete(`${repo}/${collection}/${rkey}`)
  }

  /** Keys that were written or deleted for a repo, in order; refused writes do not count. */
  readonly written: string[] = []

  callsOf(repo: string): string[] {
    return this.calls
      .filter((call) => call.repo === repo)
      .map(
        ({ method, rkey, swap }) => `${method} ${rkey}${swap === undefined ? '' : ` on ${swap}`}`,
      )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url)
    const body: unknown = request.method === 'POST' ? await request.json() : undefined
    const input = isFields(body) ? body : Object.fromEntries(searchParams)
    const method = methods[pathname]
    if (method === undefined) return refuse(501, 'MethodNotImplemented')
    const call: PdsCall = {
      method,
      repo: String(input['repo']),
      rkey: String(input['rkey']),
      ...('swapRecord' in input ? { swap: JSON.stringify(input['swapRecord']) } : {}),
    }
    this.calls.push(call)
    return (await this.before(call)) ?? this.#do(call, input)
  }

  #do(call: PdsCall, { collection, record }: Record<string, unknown>): Response {
    const { method, repo, rkey, swap } = call
    const place = `${repo}/${String(collection)}/${rkey}`
    const present = this.#records.get(place)
    if (method === 'get') {
      if (present === undefined) return refuse(400, 'RecordNotFound')
      return Response.json({ uri: `at://${place}`, ...present })
    }
    if (method === 'delete' && present === undefined) return Response.json({})
    if (swap !== undefined && swap !== JSON.stringify(present?.cid ?? null)) {
      return refuse(400, 'InvalidSwap')
    }
    this.written.push(`${method} ${rkey}`)
    if (method === 'delete') {
      this.#records.delete(place)
      return Response.json({})
    }
    if (!isFields(record)) return refuse(400, 'InvalidRequest')
    return Response.json({
      uri: `at://${place}`,
      cid: this.place(repo, rkey, record, String(collection)),
    })
  }
}

export function refuse(status: number, error: string, headers: Record<string, string> = {}) {
  return Response.json({ error, message: error }, { status, headers })
}

const posts = 'zone.stratos.feed.post'
const methods: Readonly<Record<string, PdsCall['method']>> = {
  '/xrpc/com.atproto.repo.putRecord': 'put',
  '/xrpc/com.atproto.repo.deleteRecord': 'delete',
  '/xrpc/com.atproto.repo.getRecord': 'get',
}
