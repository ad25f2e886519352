import { invalidRequest, overloaded, XrpcError } from '../atproto/errors.ts'
import {
  type AtUri,
  type Did,
  isDid,
  isHandle,
  type Nsid,
  parseNsid,
  parseRkey,
  recordUri,
  type Rkey,
} from '../atproto/syntax.ts'
import { DidNotResolved, HandleUnavailable, type Identities } from '../remote/identity.ts'
import type { CallActor } from '../service/calls.ts'
import type { Outbox } from '../service/outbox.ts'
import { checkCollection, type RecordRules } from '../service/record.ts'
import { type Targets, targetUris } from '../service/targets.ts'
import type { WriteAnswer, WriteCall, WriteOp } from '../service/write.ts'
import type { Enrollment } from '../store/service.ts'
import {
  type AccessFacts,
  type Caller,
  owns,
  repoTakendown,
  seesNothing,
  viewOf,
} from './caller.ts'
import { describeAccount } from './describe.ts'
import { cidOf, flag, number, text } from './members.ts'
import { findTargets } from './targets.ts'
import type { Answer, Call, Method } from './xrpc.ts'

export interface RepoParts extends AccessFacts {
  readonly rules: RecordRules
  readonly outbox: Outbox
  readonly identities: Identities
  readonly call: CallActor
  /** Collections in which the PDS takes stubs, by the scope that the person granted. */
  readonly stubCollections: (scope: string) => readonly Nsid[]
  /** Whether a record without a stub lacks one. */
  readonly wantsStubs: boolean
}

/** Methods on records, under the names of the PDS and, where a PDS proxies them, under our own. */
export function repoMethods(parts: RepoParts): Record<string, Method> {
  const repo = new RepoDoor(parts)
  const methods: Record<string, Method> = {
    createRecord: { audience: 'user', handle: (call) => repo.createRecord(call) },
    deleteRecord: { audience: 'user', handle: (call) => repo.deleteRecord(call) },
    getRecord: { audience: 'anyone', handle: (call) => repo.getRecord(call) },
    listRecords: { audience: 'anyone', handle: (call) => repo.listRecords(call) },
    describeRepo: { audience: 'anyone', handle: (call) => repo.describeRepo(call) },
  }
  return Object.fromEntries(
    Object.entries(methods).flatMap(([name, method]) => [
      [`zone.stratos.repo.${name}`, method],
      [`com.atproto.repo.${name}`, method],
    ]),
  )
}

class RepoDoor {
  readonly #parts: RepoParts

  constructor(parts: RepoParts) {
    this.#parts = parts
  }

  async createRecord(call: Call): Promise<Answer> {
    const { input } = call
    const author = await this.#author(call)
    if ((await this.#parts.takedowns.of(author.did)).repo) throw repoTakendown()
    const collection = this.#collection(input)
    const { record } = input
    const op: WriteOp = { action: 'create', collection, rkey: rkeyOf(input), record }
    const targets = await findTargets(targetUris(record), {
      ...this.#parts,
      author,
      requestId: call.requestId,
    })
    const { uri, cid, commit } = await this.#write(author, { call, op, targets })
    return { body: { uri, cid, commit, validationStatus: 'valid' } }
  }

  async deleteRecord(call: Call): Promise<Answer> {
    const { input } = call
    const author = await this.#author(call)
    const collection = this.#collection(input)
    const rkey = parseRkey(text(input, 'rkey') ?? '')
    const swapRecord = cidOf(input, 'swapRecord')
    const op: WriteOp = { action: 'delete', collection, rkey, swapRecord }
    const { commit } = await this.#write(author, { call, op, targets: {} })
    return { body: commit === undefined ? {} : { commit } }
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
    const { rev, record } = await this.#parts.call(did, requestId, ask)
    if (record !== null) return { body: record, headers: revHeader(caller, { did, rev }) }
    // Only the owner is told, and only of a record that is there.
    if (owns(caller, did) && view !== 'all') {
      const present = await this.#parts.call(did, requestId, { ...ask, view: 'all' })
      if (present.record !== null) throw recordTakendown()
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
    const { rev, records, last } = await this.#parts.call(did, requestId, ask)
    const body = { records, ...(last === undefined ? {} : { cursor: last }) }
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

  async #write(
    author: Enrollment,
    write: { readonly call: Call; readonly op: WriteOp; readonly targets: Targets },
  ): Promise<WriteAnswer> {
    const { call, outbox, stubCollections, wantsStubs } = this.#parts
    const { op, targets } = write
    const { did, boundaries, scope } = author
    const stubs = stubCollections(scope)
    const swapCommit = cidOf(write.call.input, 'swapCommit')
    const ask: WriteCall = { op, targets, boundaries, stubs, swapCommit }
    const send = () => call(did, write.call.requestId, { kind: 'write', ...ask })
    // Also a deletion without stubs may have one to take back.
    if (op.action === 'create' && !stubs.includes(op.collection)) {
      const answer = await send()
      if (wantsStubs) outbox.drop()
      return answer
    }
    const release = await outbox.hold(did)
    try {
      return await send()
    } finally {
      release()
    }
  }

  /** The enrolled person who calls, for whose own repo the write must be. */
  async #author({ caller, input }: Call): Promise<Enrollment> {
    const did = await this.#resolve(text(input, 'repo') ?? '')
    if (caller.kind !== 'user' || caller.did !== did) {
      throw new XrpcError(403, 'Forbidden', 'only the owner of a repo writes to it')
    }
    const enrollment = await this.#parts.enrollments.member(caller.did)
    if (enrollment?.active === true) return enrollment
    const state = enrollment === undefined ? 'not enrolled' : 'enrolled, but inactive,'
    throw new XrpcError(403, 'NotEnrolled', `${caller.did} is ${state} on this service`)
  }

  #collection(input: Call['input']): Nsid {
    const collection = parseNsid(text(input, 'collection') ?? '')
    checkCollection(collection, this.#parts.rules)
    return collection
  }

  /** Whose repo is in question, if the caller may see anything there at all. */
  async #repo(params: Call['params'], caller: Caller): Promise<Did | undefined> {
    const repo = text(params, 'repo') ?? ''
    // Strangers see no record, so that for them nothing is looked up at other people's servers.
    if (caller.kind === 'anonymous' && !isDid(repo)) return undefined
    return await this.#resolve(repo)
  }

  async #resolve(repo: string): Promise<Did | undefined> {
    if (isDid(repo)) return repo
    const handle = repo.toLowerCase()
    if (!isHandle(handle)) throw invalidRequest('repo must be a DID or a handle')
    try {
      return await this.#parts.identities.resolveHandle(handle)
    } catch (error) {
      if (error instanceof DidNotResolved || error instanceof HandleUnavailable) {
        throw overloaded('the handle cannot be looked up now')
      }
      throw error
    }
  }
}

function rkeyOf(input: Call['input']): Rkey | undefined {
  const rkey = text(input, 'rkey')
  return rkey === undefined ? undefined : parseRkey(rkey)
}

function revHeader(
  caller: Caller,
  { did, rev }: { readonly did: Did; readonly rev: string },
): Record<string, string> {
  return owns(caller, did) ? { 'atproto-repo-rev': rev } : {}
}

/** The one answer for what is not there and for what the caller may not see. */
function recordNotFound(collection: Nsid, rkey: Rkey): XrpcError {
  return new XrpcError(404, 'RecordNotFound', `there is no record ${collection}/${rkey} to see`)
}

function recordTakendown(): XrpcError {
  const text = 'your record was taken down on this service: you may delete it, and nothing else'
  return new XrpcError(403, 'RecordTakendown', text)
}

function repoNotFound(repo: string): XrpcError {
  return new XrpcError(404, 'RepoNotFound', `${repo} has no repo on this service`)
}
