import type { Did } from '../../src/atproto/syntax.ts'
import { AuthorizationServer } from '../remote/authorization-server.ts'
import { PdsServer } from '../service/pds-server.ts'
import { postCollection } from '../kit/post.ts'
import type { PdsKnowledge } from './actor-file.ts'
import { fieldsOf, isFields, textOf } from '../kit/xrpc.ts'

/** A PDS that people sign in at, and that takes stubs and remembers all it was ever given. */
export class StubTaker implements AsyncDisposable {
  readonly signIn = new AuthorizationServer()
  /** By the CID of each stub, the CID of the record that it stood for. */
  readonly #taken = new Map<string, string>()
  /** Keys of which it said that nothing stands there, or no longer, each after its DID. */
  readonly #cleared = new Set<string>()
  readonly #records = new PdsServer()

  constructor() {
    this.signIn.xrpc = (request) => this.#answer(request)
  }

  /** What it knows about one person. */
  of(did: Did): PdsKnowledge {
    return {
      taken: (pdsCid) => this.#taken.get(pdsCid),
      isCleared: (rkey) => this.#cleared.has(`${did}/${rkey}`),
    }
  }

  /** The stubs that stand in somebody's repo: key, and CID of the record. */
  stubsOf(did: Did): string[] {
    const keys = this.#records.keysOf(did).filter((key) => key.startsWith(`${postCollection}/`))
    return keys.map((key) => {
      const rkey = key.slice(postCollection.length + 1)
      return `${rkey} ${subjectOf(this.#records.at(did, rkey))}`
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.signIn[Symbol.asyncDispose]()
    await this.#records[Symbol.asyncDispose]()
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname, search, searchParams } = new URL(request.url)
    const body = request.method === 'POST' ? await request.json() : undefined
    const response = await fetch(new URL(pathname + search, this.#records.url), {
      method: request.method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const answer: unknown = await response.json()
    const input = body ?? Object.fromEntries(searchParams)
    if (isFields(input) && isFields(answer)) this.#note(input, answer)
    return Response.json(answer, { status: response.status })
  }

  #note(input: Record<string, unknown>, answer: Record<string, unknown>): void {
    const { repo, collection, rkey, record } = input
    if (collection !== postCollection) return
    if (!isFields(record)) {
      const isGone = !('cid' in answer) && [undefined, 'RecordNotFound'].includes(errorOf(answer))
      if (isGone) this.#cleared.add(`${String(repo)}/${String(rkey)}`)
    } else if ('cid' in answer) {
      this.#taken.set(textOf(answer, 'cid'), subjectOf(record))
    }
  }
}

/** The CID of the record that a stub stands for. */
function subjectOf(stub: unknown): string {
  if (!isFields(stub)) throw new Error('no stub stands there')
  return textOf(fieldsOf(fieldsOf(stub, 'source'), 'subject'), 'cid')
}

function errorOf(answer: Record<string, unknown>): string | undefined {
  return 'error' in answer ? textOf(answer, 'error') : undefined
}
