import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import {
  type AtUri,
  type Did,
  type Nsid,
  parseNsid,
  parseRkey,
  recordUri,
  type Rkey,
} from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Identities } from '../remote/identity.ts'
import type { BlobKeeper } from '../service/blob-keeper.ts'
import type { CallActor } from '../service/calls.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { Outbox } from '../service/outbox.ts'
import { checkCollection, type RecordRules } from '../service/record.ts'
import { targetUris } from '../service/targets.ts'
import type { WriteAnswer, WriteCall } from '../service/write.ts'
import type { WriteOp, WriteResult } from '../service/write-op.ts'
import type { WriteRate } from '../service/write-rate.ts'
import type { Enrollment } from '../store/service.ts'
import { type AccessFacts, repoTakendown } from './caller.ts'
import { cidOf, fields, objects, optionalFlag, text } from '../atproto/members.ts'
import { accountOf } from '../remote/account.ts'
import { findTargets } from './targets.ts'
import { checkWriteRate } from './write-rate.ts'
import type { Answer, Call } from './xrpc.ts'

export interface WriteParts extends AccessFacts {
  readonly rules: RecordRules
  readonly outbox: Outbox
  readonly identities: Identities
  readonly call: CallActor
  /** Collections in which the PDS takes stubs, by the scope that the person granted. */
  readonly stubCollections: (scope: string) => readonly Nsid[]
  /** Whether a record without a stub lacks one. */
  readonly wantsStubs: boolean
  readonly writes: WriteRate
  readonly blobs: BlobKeeper
}

/** The methods by which people write to their own repos. */
export class RepoWrites {
  readonly #parts: WriteParts

  constructor(parts: WriteParts) {
    this.#parts = parts
  }

  async createRecord(call: Call): Promise<Answer> {
    const { input } = call
    const op: WriteOp = { action: 'create', ...this.#place(input), ...recordIn(input) }
    const { results, commit, headers } = await this.#write(call, [op])
    const { uri, cid, validationStatus } = single(results)
    return { body: { uri, cid, commit, validationStatus }, headers }
  }

  async putRecord(call: Call): Promise<Answer> {
    const { input } = call
    const { collection, rkey } = this.#fullPlace(input)
    const swapRecord = swapOf(input)
    const op: WriteOp = { action: 'put', collection, rkey, swapRecord, ...recordIn(input) }
    const { results, commit, headers } = await this.#write(call, [op])
    const { uri, cid, validationStatus } = single(results)
    const made = commit === undefined ? {} : { commit }
    return { body: { uri, cid, ...made, validationStatus }, headers }
  }

  async deleteRecord(call: Call): Promise<Answer> {
    const { input } = call
    const { collection, rkey } = this.#fullPlace(input)
    const op: WriteOp = { action: 'delete', collection, rkey, swapRecord: swapOf(input) }
    const { commit, headers } = await this.#write(call, [op])
    return { body: commit === undefined ? {} : { commit }, headers }
  }

  /** Takes and gives operations of the types that the method `nsid` has for them. */
  async applyWrites(call: Call, nsid: string): Promise<Answer> {
    const { input } = call
    const writes = objects(input, 'writes')
    if (writes.length > writesMax) {
      throw invalidRequest(`at most ${writesMax} writes at once, these are ${writes.length}`)
    }
    const validate = optionalFlag(input, 'validate')
    const ops = writes.map((write) => this.#opOf(write, { nsid, validate }))
    const { results, commit, headers } = await this.#write(call, ops)
    const made = commit === undefined ? {} : { commit }
    const shown = results.map((result) => shownResult(result, nsid))
    return { body: { ...made, results: shown }, headers }
  }

  #opOf(
    write: Call['input'],
    { nsid, validate }: { readonly nsid: string; readonly validate: boolean | undefined },
  ): WriteOp {
    const record = write['value']
    const type = text(write, '$type')
    if (type === `${nsid}#create`) {
      return { action: 'create', ...this.#place(write), record, validate }
    }
    const place = this.#fullPlace(write)
    if (type === `${nsid}#update`) return { action: 'update', ...place, record, validate }
    assert(type === `${nsid}#delete`, 'the lexicon knows three kinds of writes')
    return { action: 'delete', ...place }
  }

  async #write(call: Call, ops: readonly WriteOp[]): Promise<Written> {
    const { outbox, stubCollections, wantsStubs, takedowns } = this.#parts
    const author = await this.#author(call)
    const { did, boundaries, scope } = author
    const headers = checkWriteRate(this.#parts.writes, did, ops.map(rated))
    for (const { action, collection } of ops) {
      // Whether something is there to delete, whatever its collection, is known further on.
      if (action !== 'delete') checkCollection(collection, this.#parts.rules)
    }
    const { repo, records, blobs: takendownBlobs } = await takedowns.of(did)
    if (repo && ops.some(({ action }) => action !== 'delete')) throw repoTakendown()
    const stubs = stubCollections(scope)
    const found = ops.flatMap((op) => (op.action === 'delete' ? [] : targetUris(op.record)))
    const { requestId } = call
    const ask: WriteCall = {
      ops,
      boundaries,
      stubs,
      keepsStubs: wantsStubs,
      targets: await findTargets([...new Set(found)], { ...this.#parts, author, requestId }),
      takendown: records.length === 0 ? records : records.filter(isAmong(author, ops)),
      takendownBlobs,
      swapCommit: cidOf(call.input, 'swapCommit'),
    }
    const send = () => this.#send(did, requestId, ask)
    const bare = ops.filter((op) => op.action !== 'delete' && !stubs.includes(op.collection))
    // Where the PDS takes no stub, there may still be one of before: to take back, or to correct.
    const isBare = ({ action }: WriteOp) => action === 'create' || !wantsStubs
    if (bare.length === ops.length && bare.every(isBare)) {
      const answer = await send()
      if (wantsStubs) bare.forEach(() => outbox.drop())
      return { ...answer, headers }
    }
    const release = await outbox.hold(did)
    try {
      const answer = await send()
      if (wantsStubs) bare.forEach(() => outbox.drop())
      return { ...answer, headers }
    } finally {
      release()
    }
  }

  async #send(did: Did, requestId: string, ask: WriteCall): Promise<WriteAnswer> {
    const answer = await this.#parts.call(did, requestId, { kind: 'write', ...ask })
    if (answer.touchesBlobs === true) this.#parts.blobs.nudge(did, requestId)
    return answer
  }

  /** The enrolled person who calls, for whose own repo the write must be. */
  async #author({ caller, input }: Call): Promise<Enrollment> {
    const did = await accountOf(text(input, 'repo') ?? '', this.#parts.identities)
    if (caller.kind !== 'user' || caller.did !== did) {
      throw new XrpcError(403, 'Forbidden', 'only the owner of a repo writes to it')
    }
    return await activeMember(caller.did, this.#parts.enrollments)
  }

  #place(members: Call['input']): { readonly collection: Nsid; readonly rkey?: Rkey } {
    const collection = parseNsid(text(members, 'collection') ?? '')
    const rkey = text(members, 'rkey')
    return { collection, ...(rkey === undefined ? {} : { rkey: parseRkey(rkey) }) }
  }

  #fullPlace(members: Call['input']): { readonly collection: Nsid; readonly rkey: Rkey } {
    const { collection, rkey } = this.#place(members)
    assert(rkey !== undefined, 'a key is required by the lexicon')
    return { collection, rkey }
  }
}

/** Who may write. @throws XrpcError 403 NotEnrolled */
export async function activeMember(did: Did, enrollments: Enrollments): Promise<Enrollment> {
  const enrollment = await enrollments.member(did)
  if (enrollment?.active === true) return enrollment
  const state = enrollment === undefined ? 'not enrolled' : 'enrolled, but inactive,'
  throw new XrpcError(403, 'NotEnrolled', `${did} is ${state} on this service`)
}

/**
 * The input of the method `nsid`, one of the two names of applyWrites, with its operations in the
 * form that its lexicon knows: out of those of the other name, and those that name an `action` and
 * bring a `record`, as older clients write them.
 */
export function standardWrites(body: unknown, nsid: string): unknown {
  if (typeof body !== 'object' || body === null || !('writes' in body)) return body
  if (!Array.isArray(body.writes)) return body
  return { ...body, writes: body.writes.map((write) => standardWrite(write, nsid)) }
}

function standardWrite(write: unknown, nsid: string): unknown {
  if (typeof write !== 'object' || write === null) return write
  const { $type, action, record, ...rest }: Record<string, unknown> = { ...write }
  if (typeof $type === 'string') {
    const kind = /^(?:com\.atproto|zone\.stratos)\.repo\.applyWrites#(\w+)$/.exec($type)?.[1]
    return kind === undefined ? write : { ...write, $type: `${nsid}#${kind}` }
  }
  if (action !== 'create' && action !== 'update' && action !== 'delete') return write
  const value = action === 'delete' || record === undefined ? {} : { value: record }
  return { $type: `${nsid}#${action}`, ...rest, ...value }
}

/** As on a PDS. */
const writesMax = 200

function shownResult(result: WriteResult, nsid: string): object {
  const { action, uri, cid, validationStatus } = result
  const type = { $type: `${nsid}#${action}Result` }
  return action === 'delete' ? type : { ...type, uri, cid, validationStatus }
}

function recordIn(input: Call['input']) {
  return { record: fields(input, 'record'), validate: optionalFlag(input, 'validate') }
}

function swapOf(input: Call['input']) {
  return input['swapRecord'] === null ? null : cidOf(input, 'swapRecord')
}

interface Written extends WriteAnswer {
  readonly headers: Readonly<Record<string, string>>
}

/** A put counts as what it mostly is. */
function rated({ action }: WriteOp): 'create' | 'update' | 'delete' {
  return action === 'put' ? 'update' : action
}

function single(results: readonly WriteResult[]): WriteResult {
  const [result] = results
  assert(result !== undefined, 'one operation has one result')
  return result
}

/** Whether a URI is of one of the keys that are written to. */
function isAmong({ did }: Enrollment, ops: readonly WriteOp[]): (uri: AtUri) => boolean {
  const uris = new Set(
    ops.flatMap(({ collection, rkey }) =>
      rkey === undefined ? [] : [recordUri(did, collection, rkey)],
    ),
  )
  return (uri) => uris.has(uri)
}
