import type { RepoLeaf } from '../atproto/car-repo.ts'
import { encode } from '../atproto/cbor.ts'
import { type CidBytes, cidForCbor, cidToString, equalCids } from '../atproto/cid.ts'
import { signCommit } from '../atproto/commit.ts'
import type { DataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'
import type { SigningKey } from '../atproto/keys.ts'
import type { Schemas } from '../atproto/lexicon.ts'
import { RootEdge } from '../atproto/mst-build.ts'
import { type AtUri, recordUri, type Tid } from '../atproto/syntax.ts'
import { nextTid } from '../atproto/tid.ts'
import { distinctCids } from '../service/blob.ts'
import { checkKept, type KeptRecord } from '../service/record.ts'
import { stubOf } from '../service/stub.ts'
import type { Targets } from '../service/targets.ts'
import { nextSeq } from '../service/write.ts'
import type { WriteRules } from '../service/write-op.ts'
import {
  eventOp,
  type EventOp,
  eventStatement,
  type Head,
  moveHead,
  opStatements,
  type RecordOp,
} from '../store/actor-change.ts'
import { queueStatement } from '../store/actor-outbox.ts'
import type { Sqlite } from '../store/sqlite.ts'
import type { Step } from './import.ts'
import { ImportReplies, ofRecord } from './import-replies.ts'
import type { ImportAsk, Imported } from './messages.ts'

interface Parts {
  readonly ask: ImportAsk
  readonly sqlite: Sqlite
  /** Of the tree that comes. */
  readonly root: CidBytes
  /** Where the repo stood before. */
  readonly head: Head
  /** Nothing is logged up to there. */
  readonly vouched: number
  readonly key: SigningKey
  readonly nowMs: number
  readonly rules: WriteRules
  readonly schemas: Schemas
  readonly targets: (uris: readonly string[]) => Promise<Targets>
  readonly step: Step
}

/** A record as it stands in the CAR; nothing is known of it but that it is one. */
export interface Arriving extends RepoLeaf {
  readonly content: Uint8Array
  readonly record: DataObject
}

/**
 * The rows of the records that an import brings, in the order of the tree. For those who follow the
 * repo they come in events of a bounded size, each with a rev and seq of its own; the commit that is
 * signed is the last of them.
 */
export class ImportRows {
  readonly #parts: Parts
  readonly #replies: ImportReplies
  readonly #takendown: ReadonlySet<AtUri>
  readonly #time: string
  /** The tree of the records as they are here, where they are not as they came. */
  readonly #tree = new RootEdge()
  #head: Head
  #event: EventOp[] = []
  #records = 0
  #rewritten = 0
  /** Records with boundaries of another service: the first ones, and how many they are. */
  readonly #foreign: string[] = []
  #foreignCount = 0

  constructor(parts: Parts) {
    this.#parts = parts
    this.#head = parts.head
    this.#time = new Date(parts.nowMs).toISOString()
    this.#takendown = new Set(parts.ask.takendown)
    this.#replies = new ImportReplies({ ...parts, did: parts.ask.did, own: parts.ask.boundaries })
  }

  /** @throws XrpcError for a record that breaks a rule */
  async add(arriving: Arriving): Promise<void> {
    await this.#parts.step('stored')
    const { path } = arriving
    const kept = this.#checked(arriving)
    if (kept === undefined) return
    if (this.#event.length === 0) this.#advance()
    this.#records += 1
    this.#store(arriving, kept)
    if (this.#event.length === opsOfEventMax) this.#tell()
    const parent = kept.links.find((link) => link.path === 'reply.parent')?.uri
    if (parent === undefined) return
    await this.#replies.add({ path, boundaries: kept.boundaries, parent })
  }

  /** A record that is not as it came. @throws as `add` does */
  async addMoved(was: Arriving, record: DataObject): Promise<void> {
    const content = encode(record)
    const cid = cidForCbor(content)
    if (!equalCids(cid, was.cid)) this.#rewritten += 1
    this.#tree.add(was.path, cid)
    await this.add({ ...was, cid, content, record })
  }

  /** To be called when every record was added; signs what is there. @throws XrpcError as `add` */
  async finish(): Promise<Imported> {
    const { ask, key, sqlite, step, root } = this.#parts
    if (this.#foreignCount > 0) throw unmapped(this.#foreign, this.#foreignCount)
    await this.#replies.finish(() => step('checked'))
    const imported = { records: this.#records, rewritten: this.#rewritten }
    if (this.#records === 0) return imported
    if (this.#event.length > 0) this.#tell()
    const data = this.#tree.finish()?.cid ?? root
    const commit = signCommit({ did: ask.did, data, rev: this.#head.rev }, key)
    const after = { ...this.#head, cid: cidToString(commit.cid) }
    const change = { did: ask.did, after, commit: commit.bytes, time: this.#time }
    sqlite.execute([moveHead(this.#parts.head, change)])
    return imported
  }

  /** Undefined where a boundary is another service's: then nothing is stored in the end. */
  #checked(arriving: Arriving): KeptRecord | undefined {
    const { ask, rules, schemas } = this.#parts
    const { path, place } = arriving
    const { did, collection, rkey } = place
    const uri = recordUri(did, collection, rkey)
    if (this.#takendown.has(uri)) throw ofRecord(path, takendown())
    try {
      return checkKept(collection, arriving, { rules, own: ask.boundaries, schemas })
    } catch (error) {
      if (!(error instanceof XrpcError)) throw error
      if (error.error !== 'ServiceMismatch') throw ofRecord(path, error)
      this.#foreignCount += 1
      if (this.#foreign.length < foreignMax) this.#foreign.push(uri)
      return undefined
    }
  }

  #store({ place, cid, content }: Arriving, kept: KeptRecord): void {
    const { ask, sqlite, rules } = this.#parts
    const { did, collection, rkey } = place
    const { boundaries, links, createdAt } = kept
    const blobs = distinctCids(kept.blobs)
    const uri = recordUri(did, collection, rkey)
    this.#head = { ...this.#head, lastBlock: this.#head.lastBlock + 1 }
    const put = { cid: cidToString(cid), content, blockId: this.#head.lastBlock, links, blobs }
    const op: RecordOp = {
      action: 'create',
      uri,
      collection,
      rkey,
      put,
      before: [],
      after: boundaries,
    }
    this.#event.push(eventOp(op))
    sqlite.execute(opStatements(op, { rev: this.#head.rev, time: this.#time }))
    if (!ask.stubs.includes(collection)) return
    const said = createdAt ?? this.#time
    const stub = stubOf({ collection, uri, cid: put.cid, createdAt: said, rules })
    sqlite.execute([queueStatement({ collection, rkey, record: JSON.stringify(stub) })])
  }

  /** To the rev and seq of the next event. */
  #advance(): void {
    const { rev, seq } = this.#head
    const next: Tid = nextTid({ nowMs: this.#parts.nowMs, clockId, after: rev })
    this.#head = {
      ...this.#head,
      rev: next,
      seq: nextSeq(next, Math.max(seq, this.#parts.vouched)),
    }
  }

  #tell(): void {
    const at = { did: this.#parts.ask.did, time: this.#time, after: this.#head }
    this.#parts.sqlite.execute([eventStatement(at, this.#event)])
    this.#event = []
  }
}

/** As many as one write of people may have. */
const opsOfEventMax = 200
/** Those that an answer names. */
const foreignMax = 100
/** Told apart from those of shards. */
const clockId = 1_000

function takendown(): XrpcError {
  return new XrpcError(403, 'RecordTakendown', 'it was taken down on this service')
}

function unmapped(uris: readonly string[], count: number): XrpcError {
  const message =
    `${count} records have boundaries of another service: say by boundaryMap what they become ` +
    `here. The first is ${uris[0]}`
  return new XrpcError(400, 'ServiceMismatch', message, { fields: { uris } })
}
