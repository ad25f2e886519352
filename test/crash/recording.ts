import { readFileSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseDid } from '../../src/atproto/syntax.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { signIn } from '../kit/sign-in.ts'
import { eventually } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'
import type { Dice } from './dice.ts'
import { contentsOf } from './disk.ts'
import { Ledger, type Note } from './ledger.ts'
import { Load } from './load.ts'
import { StubTaker } from './stub-taker.ts'
import { type Op, readTrace, recorded } from './trace.ts'

/** All that a service did in its life, from an empty folder on, and what callers were told. */
export interface Recording {
  /** The folder that the operations are about; it is gone. */
  readonly root: string
  readonly ops: readonly Op[]
  /** The lines at which something was asked for or said, and those at which callers heard of it. */
  readonly moments: { readonly all: readonly number[]; readonly news: readonly number[][] }
  /** What was in the folder in the end. */
  readonly final: ReadonlyMap<string, Buffer>
  readonly env: Readonly<Record<string, string>>
  readonly adminBasic: string
  readonly boundary: string
  readonly pds: Pick<StubTaker, 'of'>
  /** What callers knew, as told by all that had left the service before a line. */
  ledgerAt(line: number): Ledger
}

interface RecordOptions {
  readonly env: Readonly<Record<string, string>>
  /** How much is written at least by somebody who writes large records. */
  readonly bytesLeast?: number
}

export async function record(dice: Dice, { env, bytesLeast = 0 }: RecordOptions) {
  const traces = await mkdtemp(join(tmpdir(), 'stratos-trace-'))
  try {
    await using pds = new StubTaker()
    const runs: string[] = []
    await using stratos = await SeededStratos.start({
      people: {},
      strangers: [...early, ...late, passing, quiet],
      env: { STRATOS_ENROLLMENT_MODE: 'open', STRATOS_SQLITE_SYNCHRONOUS: 'full', ...env },
      around: (command) => {
        runs.push(join(traces, `${runs.length}`))
        return recorded(runs.at(-1) ?? '', command)
      },
    })
    const life = new Life(stratos, pds, dice)
    await life.begin(bytesLeast)
    await stratos.kill()
    await life.loadEnded()
    await stratos.run()
    await life.goOn()
    await stratos.terminate()
    await life.loadEnded()
    const ops = await opsOf(runs, stratos.dataFolder)
    return recordingOf({ stratos, pds, notes: life.notes, ops })
  } finally {
    await rm(traces, { recursive: true, force: true })
  }
}

const early = ['anna', 'bela']
const late = ['cleo', 'dora']
const passing = 'emil'
const quiet = 'fred'
const writersOfPerson = 3
const loadMs = 600
const largeChars = 150_000

/** What is known from the moment on at which `mark` leaves the service. */
interface MarkedNote {
  readonly note: Note
  readonly mark: string
}

/** People who come, write and go. */
class Life {
  readonly notes: MarkedNote[] = []
  readonly #stratos: SeededStratos
  readonly #pds: StubTaker
  readonly #dice: Dice
  /** What is known by now. */
  readonly #ledger = new Ledger()
  /** By request, the CID of its commit. */
  readonly #commits = new Map<number, string>()
  #loads: Load[] = []
  #number = 0
  #fences = 0

  constructor(stratos: SeededStratos, pds: StubTaker, dice: Dice) {
    this.#stratos = stratos
    this.#pds = pds
    this.#dice = dice
  }

  /** A service that is new; it is left while people write. */
  async begin(bytesLeast: number): Promise<void> {
    const text = readFileSync(join(this.#stratos.dataFolder, 'signing_key'), 'utf8')
    this.#take({ kind: 'service-key', text }, await this.#fence())
    await this.#enroll(quiet)
    await this.#writeABit(quiet)
    for (const name of early) await this.#enroll(name)
    const load = await this.#startLoad(early)
    await this.#enroll(passing)
    await this.#writeABit(quiet)
    const own = await this.#startLoad([passing], bytesLeast > 0 ? largeChars : undefined)
    await Bun.sleep(loadMs / 3)
    await eventually('many large records', () =>
      own.answers * largeChars >= bytesLeast ? true : undefined,
    )
    own.expectEnd()
    await own.ended()
    await this.#leave(passing)
    await Bun.sleep(loadMs)
    load.expectEnd()
  }

  /** After a start on the same data; in the end nobody writes any more. */
  async goOn(): Promise<void> {
    const first = await this.#startLoad(early)
    for (const name of late) await this.#enroll(name)
    const second = await this.#startLoad(late)
    await Bun.sleep(loadMs)
    for (const load of [first, second]) load.expectEnd()
    await this.loadEnded()
  }

  async loadEnded(): Promise<void> {
    for (const load of this.#loads) await load.ended()
    this.#loads = []
  }

  /** What comes last, no later write and no delivery brings to disk by the way. */
  async #writeABit(name: string): Promise<void> {
    const load = await this.#startLoad([name])
    await eventually('some answers', () => (load.answers > 5 ? true : undefined))
    load.expectEnd()
    await load.ended()
  }

  async #enroll(name: string): Promise<void> {
    const { did } = this.#stratos.person(name)
    const answer = await signIn(this.#stratos, name, { pds: this.#pds.signIn })
    if (answer.status !== 200) throw new Error(`a sign-in was answered ${answer.status}`)
    const told = await this.#fence()
    const params = { did }
    const { body } = await this.#stratos.call('zone.stratos.enrollment.status', { params })
    this.#take({ kind: 'enrolled', did, signingKey: textOf(body, 'signingKey') }, told)
  }

  async #leave(name: string): Promise<void> {
    const { did } = this.#stratos.person(name)
    this.#take({ kind: 'leaving', did }, await this.#fence())
    const method = 'zone.stratos.enrollment.unenroll'
    const { status } = await this.#stratos.callAs(name, method, { verb: 'POST' })
    if (status !== 200) throw new Error(`leaving was answered ${status}`)
    this.#take({ kind: 'left', did }, await this.#fence())
  }

  async #startLoad(names: readonly string[], chars?: number): Promise<Load> {
    const begun = await this.#fence()
    const load = new Load({
      url: this.#stratos.url,
      boundary: this.#stratos.boundary('a'),
      dice: this.#dice,
      note: (note) => this.#take(note, this.#markOf(note) ?? begun),
      // Loads run beside each other.
      number: this.#number,
      ...(chars === undefined ? {} : { chars }),
    })
    this.#number += 1_000_000
    this.#loads.push(load)
    for (const name of names) {
      const { did } = this.#stratos.person(name)
      const rkeys = this.#ledger.settledKeys(did)
      for (let writer = 0; writer < writersOfPerson; writer++) {
        load.startWriter(
          did,
          rkeys.filter((_, index) => index % writersOfPerson === writer),
        )
      }
    }
    return load
  }

  #take(note: Note, mark: string): void {
    this.notes.push({ note, mark })
    this.#ledger.note(note)
    if (note.kind === 'answered') this.#commits.set(note.number, note.commit)
  }

  /** A writer asks again once it has its answer. */
  #markOf(note: Note): string | undefined {
    if (note.kind === 'answered') return note.commit
    return note.kind === 'asked' && note.after !== undefined
      ? this.#commits.get(note.after)
      : undefined
  }

  /** Makes the service say something that it says but once: after all that it has said so far. */
  async #fence(): Promise<string> {
    const did = `did:web:fence-${++this.#fences}.test`
    const params = { did }
    const { body } = await this.#stratos.call('zone.stratos.enrollment.status', { params })
    return textOf(body, 'did')
  }
}

function recordingOf(made: {
  readonly stratos: SeededStratos
  readonly pds: StubTaker
  readonly notes: readonly MarkedNote[]
  readonly ops: readonly Op[]
}): Recording {
  const { stratos, pds, notes, ops } = made
  const said = firstSaid(ops)
  const dated = notes.map(({ note, mark }) => {
    const line = said.get(mark)
    if (line === undefined) throw new Error(`${mark} never left the service`)
    return { note, line }
  })
  const published = publishedBy(ops)
  if (published.length === 0) throw new Error('no stub left the service')
  dated.push(...published)
  return {
    root: stratos.dataFolder,
    ops: ops.filter(({ kind }) => kind !== 'say'),
    moments: {
      all: ops.map(({ start }) => start),
      // By what was heard: of some kinds there are but few.
      news: [...Map.groupBy(dated, ({ note }) => note.kind).values()].map((group) =>
        group.map(({ line }) => line),
      ),
    },
    final: contentsOf(stratos.dataFolder),
    env: stratos.environment(),
    adminBasic: stratos.adminBasic,
    boundary: stratos.boundary('a'),
    pds,
    ledgerAt: (cut) => {
      const ledger = new Ledger()
      for (const { note, line } of dated) if (line < cut) ledger.note(note)
      return ledger
    },
  }
}

const saidPattern = /"commit":\{"cid":"(\w+)"|(did:web:fence-\d+\.test)/g

/** Of each commit and fence the line at which it began to leave the service, to whomever. */
function firstSaid(ops: readonly Op[]): Map<string, number> {
  const said = new Map<string, number>()
  for (const op of ops) {
    if (op.kind !== 'say') continue
    const text = op.bytes.toString('latin1')
    for (const [, commit, fence] of text.matchAll(saidPattern)) {
      const mark = commit ?? fence ?? ''
      if (!said.has(mark)) said.set(mark, op.start)
    }
  }
  return said
}

/** Each stub that was sent to a PDS. */
function publishedBy(ops: readonly Op[]): { readonly note: Note; readonly line: number }[] {
  const subject = /"subject":\{"uri":"at:\/\/([\w:]+)\/[\w.]+\/(\w+)","cid":"(\w+)"/g
  return ops.flatMap((op) => {
    if (op.kind !== 'say') return []
    return [...op.bytes.toString('latin1').matchAll(subject)].map(
      ([, did = '', rkey = '', cid = '']) => {
        return { note: { kind: 'published', did: parseDid(did), rkey, cid }, line: op.start }
      },
    )
  })
}

/** What the runs of one service did, one after the other. */
export async function opsOf(traces: readonly string[], root: string): Promise<Op[]> {
  const ops: Op[] = []
  let lines = 0
  for (const path of traces) {
    await traceEnded(path)
    const run = await readTrace(path, root, lines)
    for (const op of run.ops) ops.push(op)
    lines = run.lines
  }
  return ops
}

/** The tracer outlives the process by a moment: its last line is about the end of the first one. */
async function traceEnded(path: string): Promise<void> {
  await using file = await open(path)
  const piece = async (at: number) => {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(200), 0, 200, Math.max(0, at))
    return buffer.toString('latin1', 0, bytesRead)
  }
  const [thread = ''] = (await piece(0)).split(' ')
  await eventually(`end of ${path}`, async () => {
    const [last = ''] = (await piece((await file.stat()).size - 200))
      .trimEnd()
      .split('\n')
      .slice(-1)
    return /^(\d+) +\+\+\+/.exec(last)?.[1] === thread ? true : undefined
  })
}
