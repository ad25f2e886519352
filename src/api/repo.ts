import { type AtUri, type Did, isDid, parseNsid, parseRkey, recordUri } from '../atproto/syntax.ts'
import { type Caller, owns, seesNothing, viewOf } from './caller.ts'
import { describeAccount } from './describe.ts'
import { cidOf, flag, number, text } from '../atproto/members.ts'
import { recordNotFound, recordTakendown, revHeader } from './record-answers.ts'
import { accountOf } from '../remote/account.ts'
import { repoNotFound } from './repo-name.ts'
import { RepoWrites, standardWrites, type WriteParts } from './repo-writes.ts'
import { type Answer, type Call, JsonText, type Method } from './xrpc.ts'

/** Methods on records, under the names of the PDS and, where a PDS proxies them, under our own. */
export function repoMethods(parts: WriteParts): Record<string, Method> {
  const reads = new RepoReads(parts)
  const writes = new RepoWrites(parts)
  return {
    ...methodsOf('zone.stratos.repo', reads, writes),
    ...methodsOf('com.atproto.repo', reads, writes),
  }
}

function methodsOf(prefix: string, reads: RepoReads, writes: RepoWrites): Record<string, Method> {
  const applyWrites = `${prefix}.applyWrites`
  return {
    [`${prefix}.createRecord`]: { audience: 'user', handle: (call) => writes.createRecord(call) },
    [`${prefix}.putRecord`]: { audience: 'user', handle: (call) => writes.putRecord(call) },
    [`${prefix}.deleteRecord`]: { audience: 'user', handle: (call) => writes.deleteRecord(call) },
    [applyWrites]: {
      audience: 'user',
      prepare: (body) => standardWrites(body, applyWrites),
      handle: (call) => writes.applyWrites(call, applyWrites),
    },
    [`${prefix}.getRecord`]: { audience: 'anyone', handle: (call) => reads.getRecord(call) },
    [`${prefix}.listRecords`]: { audience: 'anyone', handle: (call) => reads.listRecords(call) },
    [`${prefix}.describeRepo`]: { audience: 'anyone', handle: (call) => reads.describeRepo(call) },
  }
}

class RepoReads {
  readonly #parts: WriteParts

  constructor(parts: WriteParts) {
    this.#parts = parts
  }

  async getRecord(call: Call): Promise<Answer> {
    const { params, caller, requestId } = call
    const collection = parseNsid(text(params, 'collection') ?? '')
    const rkey = parseRkey(text(params, 'rkey') ?? '')
    const cid = cidOf(params, 'cid')
    const did = await this.#repo(params, caller)
    if (did === undefined) throw recordNotFound(collection, rkey)
    const uri = recordUri(did, collection, rkey)
    const asked = { did, isAbout: (one: AtUri) => one === uri }
    const view = await viewOf(caller, asked, this.#parts)
    if (view === undefined || seesNothing(view)) throw recordNotFound(collection, rkey)
    const ask = { kind: 'read', collection, rkey, cid, view } as const
    const { rev, texts } = await this.#parts.call(did, requestId, ask)
    const [record] = texts
    if (record !== undefined) {
      return { body: new JsonText(record), headers: revHeader(caller, { did, rev }) }
    }
    // Only the owner is told, and only of a record that is there.
    if (owns(caller, did) && view !== 'all') {
      const present = await this.#parts.call(did, requestId, { ...ask, view: 'all' })
      if (present.cid !== null) throw recordTakendown()
    }
    throw recordNotFound(collection, rkey)
  }

  async listRecords(call: Call): Promise<Answer> {
    const { params, caller, requestId } = call
    const collection = parseNsid(text(params, 'collection') ?? '')
    const limit = number(params, 'limit') ?? 50
    const cursorText = text(params, 'cursor')
    const cursor = cursorText === undefined ? undefined : parseRkey(cursorText)
    const order = flag(params, 'reverse') ? 'ascending' : 'descending'
    const did = await this.#repo(params, caller)
    if (did === undefined) throw repoNotFound(text(params, 'repo') ?? '')
    const prefix = `at://${did}/${collection}/`
    const asked = { did, isAbout: (uri: AtUri) => uri.startsWith(prefix) }
    const view = await viewOf(caller, asked, this.#parts)
    if (view === undefined) throw repoNotFound(text(params, 'repo') ?? '')
    if (seesNothing(view)) return { body: { records: [] } }
    const ask = { kind: 'list', collection, limit, cursor, order, view } as const
    const { rev, texts, last } = await this.#parts.call(did, requestId, ask)
    const more = last === undefined ? '' : `,"cursor":${JSON.stringify(last)}`
    const body = new JsonText(`{"records":[${texts.join(',')}]${more}}`)
    return { body, headers: revHeader(caller, { did, rev }) }
  }

  /** Whoever sees no record of a repo learns no more than of one that does not exist. */
  async describeRepo(call: Call): Promise<Answer> {
    const { params, caller, requestId } = call
    const repo = text(params, 'repo') ?? ''
    const did = await this.#repo(params, caller)
    if (did === undefined) throw repoNotFound(repo)
    const view = await viewOf(caller, { did, isAbout: () => true }, this.#parts)
    if (view === undefined || seesNothing(view)) throw repoNotFound(repo)
    const ask = { kind: 'collections', view } as const
    const { collections } = await this.#parts.call(did, requestId, ask)
    const isOwn = caller.kind === 'admin' || owns(caller, did)
    if (collections.length === 0 && !isOwn) throw repoNotFound(repo)
    return { body: { ...(await describeAccount(did, this.#parts.identities)), collections } }
  }

  /** Whose repo is in question, if the caller may see anything there at all. */
  async #repo(params: Call['params'], caller: Caller): Promise<Did | undefined> {
    const repo = text(params, 'repo') ?? ''
    // Strangers see no record, so that for them nothing is looked up at other people's servers.
    if (caller.kind === 'anonymous' && !isDid(repo)) return undefined
    return await accountOf(repo, this.#parts.identities)
  }
}
