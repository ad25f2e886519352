import { Database } from 'bun:sqlite'
import { type Did, parseTid } from '../../src/atproto/syntax.ts'
import { nextSeq } from '../../src/service/write.ts'
import { postCollection } from '../kit/post.ts'
import type { Answered } from './ledger.ts'

/** What the rows of an actor's database say, read past all of our own code. */
export interface ActorFile {
  readonly did: Did
  readonly head: { readonly cid: string; readonly rev: string; readonly seq: number }
  readonly events: readonly EventRow[]
  readonly records: readonly RecordRow[]
  readonly outbox: readonly OutboxRow[]
  /** Numbers that have to be equal to others, and what SQLite itself says. */
  readonly blocks: number
  readonly boundaries: readonly string[]
  readonly integrity: string
}

interface EventRow {
  readonly seq: number
  readonly rev: string
  readonly ops: readonly EventOp[]
}

interface EventOp {
  readonly action: string
  readonly path: string
  readonly cid: string | null
  readonly prev: string | null
  readonly after: readonly string[]
}

interface RecordRow {
  readonly uri: string
  readonly rkey: string
  readonly cid: string
  readonly rev: string
}

interface OutboxRow {
  readonly rkey: string
  readonly position: number
  readonly record: string | null
  readonly pdsCid: string | null
  readonly pending: number
}

export function readActorFile(path: string, did: Did): ActorFile {
  using database = new Database(path, { readonly: true })
  // Whoever opens or closes it has it alone for a moment.
  database.run('pragma busy_timeout = 10000')
  // All as of one moment, whoever else writes.
  database.run('begin')
  const all = <Row>(sql: string) => database.query<Row, []>(sql).all()
  const [head] = all<ActorFile['head']>('select cid, rev, seq from stratos_repo_root')
  const [blocks] = all<{ count: number }>(`select count(distinct r."blockId") as count
    from stratos_record r join stratos_repo_block b on b.id = r."blockId"
    where (select count(*) from stratos_repo_block) = (select count(*) from stratos_record)`)
  const [integrity] = all<{ integrity_check: string }>('pragma integrity_check')
  if (head === undefined) throw new Error(`${did} has no head`)
  return {
    did,
    head,
    events: all<{ seq: number; rev: string; event: string }>(
      'select seq, rev, event from stratos_seq order by seq',
    ).map(({ seq, rev, event }) => ({ seq, rev, ops: JSON.parse(event).ops })),
    records: all(`select uri, rkey, cid, "repoRev" as rev from stratos_record
      where collection = '${postCollection}' order by uri`),
    outbox: all(`select rkey, position, record, "pdsCid", pending from stratos_outbox
      where collection = '${postCollection}' order by rkey`),
    blocks: blocks?.count ?? 0,
    boundaries: all<{ row: string }>(`select rkey || ' ' || boundary as row
      from stratos_record_boundary order by row`).map(({ row }) => row),
    integrity: integrity?.integrity_check ?? '',
  }
}

/** What a PDS was told about the stubs of one person. */
export interface PdsKnowledge {
  /** The CID of the record that a stub of this CID stands for. */
  readonly taken: (pdsCid: string) => string | undefined
  /** Whether a key is one where a stub was deleted. */
  readonly isCleared: (rkey: string) => boolean
}

/** One complaint for each rule of the rows that does not hold. */
export function fileComplaints(
  file: ActorFile,
  known: {
    /** What callers were told. */
    readonly answered: readonly Answered[]
    /** The events as they were seen before. */
    readonly before?: readonly EventRow[] | undefined
    readonly pds: PdsKnowledge
  },
): string[] {
  return [
    ...(file.integrity === 'ok' ? [] : [`integrity: ${file.integrity}`]),
    ...numberComplaints(file, known.before ?? []),
    ...replayComplaints(file),
    ...answerComplaints(file, known.answered),
    ...outboxComplaints(file, known.pds),
  ].map((complaint) => `${file.did}: ${complaint}`)
}

function numberComplaints({ head, events }: ActorFile, before: readonly EventRow[]): string[] {
  const complaints = events.flatMap(({ seq, rev }, index) => {
    const last = events[index - 1]
    const isOdd = seq !== nextSeq(parseTid(rev), last?.seq)
    const odd = isOdd ? [`event ${index + 1} of rev ${rev} has the seq ${seq}`] : []
    const grows = last === undefined || rev > last.rev
    return grows ? odd : [...odd, `rev ${rev} of event ${seq} is not above ${last.rev}`]
  })
  const last = events.at(-1)
  if (last?.seq !== head.seq || last.rev !== head.rev) {
    complaints.push(`the head is ${head.seq} ${head.rev}, the last event ${last?.seq} ${last?.rev}`)
  }
  const changed = before.find((row, index) => !Bun.deepEquals(row, events[index]))
  if (changed !== undefined) complaints.push(`event ${changed.seq} is not what it was`)
  return complaints
}

/** The events, done one after the other, must give the records that are there. */
function replayComplaints({ events, records, blocks, boundaries }: ActorFile): string[] {
  const complaints: string[] = []
  const made = new Map<string, { cid: string; rev: string; after: readonly string[] }>()
  for (const { seq, rev, ops } of events) {
    for (const { path, cid, prev, after } of ops) {
      if ((made.get(path)?.cid ?? null) !== prev) complaints.push(`event ${seq} has a wrong prev`)
      if (cid === null) made.delete(path)
      else made.set(path, { cid, rev, after })
    }
  }
  const present = records.map(({ rkey, cid, rev }) => `${postCollection}/${rkey} ${cid} ${rev}`)
  const expected = [...made].map(([path, { cid, rev }]) => `${path} ${cid} ${rev}`)
  if (!Bun.deepEquals(present, expected.toSorted())) {
    complaints.push('the records are not what the events say')
  }
  const within = [...made].flatMap(([path, { after }]) =>
    after.map((boundary) => `${path.slice(postCollection.length + 1)} ${boundary}`),
  )
  if (!Bun.deepEquals(boundaries, within.toSorted())) {
    complaints.push('the boundaries are not what the events say')
  }
  if (blocks !== records.length) complaints.push(`${blocks} blocks, ${records.length} records`)
  return complaints
}

/** Each answer told of a commit, which must be there with its event. */
function answerComplaints({ events }: ActorFile, answered: readonly Answered[]): string[] {
  const byRev = new Map(events.map((event) => [event.rev, event]))
  return answered.flatMap(({ rev, writes }) => {
    const event = byRev.get(rev)
    if (event === undefined) return [`no event has the acknowledged rev ${rev}`]
    const said = event.ops.map(({ path, cid }) => `${path} ${cid}`)
    const told = writes.map(({ rkey, cid }) => `${postCollection}/${rkey} ${cid}`)
    return Bun.deepEquals(said, told) ? [] : [`the event of ${rev} does not say what was told`]
  })
}

/** A stub is due, or was delivered, for every record; what is gone is to be taken away. */
function outboxComplaints(
  { did, records, events, outbox }: ActorFile,
  { taken, isCleared }: PdsKnowledge,
): string[] {
  const rows = new Map(outbox.map((row) => [row.rkey, row]))
  const cids = new Map(records.map(({ rkey, cid }) => [rkey, cid]))
  const wrong = records.filter(({ rkey, cid }) => {
    const row = rows.get(rkey)
    if (row?.pending === 0) return row.record !== null || taken(row.pdsCid ?? '') !== cid
    const stub = row?.record == null ? undefined : JSON.parse(row.record)
    const subject = { uri: `at://${did}/${postCollection}/${rkey}`, cid }
    return !Bun.deepEquals(stub?.source?.subject, subject)
  })
  const kept = outbox.filter(
    ({ rkey, record, pending }) => !cids.has(rkey) && (record !== null || pending !== 1),
  )
  const keys = new Set(events.flatMap(({ ops }) => ops.map(({ path }) => path)))
  const forgotten = [...keys]
    .map((path) => path.slice(postCollection.length + 1))
    .filter((rkey) => !cids.has(rkey) && !rows.has(rkey) && !isCleared(rkey))
  const positions = outbox.filter(({ pending }) => pending === 1).map(({ position }) => position)
  return [
    ...wrong.map(({ rkey }) => `the stub of ${rkey} is wrong`),
    ...kept.map(({ rkey }) => `the stub of ${rkey}, which is gone, is not to be deleted`),
    ...forgotten.map((rkey) => `the outbox has forgotten ${rkey}`),
    ...(new Set(positions).size === positions.length ? [] : ['two rows have one position']),
  ]
}
