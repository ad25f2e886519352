import { decode } from '../../src/atproto/cbor.ts'
import { isDataObject } from '../../src/atproto/data.ts'
import { messageFrame } from '../../src/atproto/stream-frame.ts'
import { type HeardStream, type ListenPlan, nowMs, type PlannedStream } from './listen-plan.ts'
import { linesOf } from './lines.ts'
import { StreamWire } from './stream-wire.ts'

/**
 * The readers of streams, in a process of its own: takes a plan as the first line of its standard
 * input, opens the sockets and says `ready`. It says `done` once all commits are there, and what it
 * saw when its input ends.
 */
const lines = linesOf(Bun.stdin.stream())[Symbol.asyncIterator]()
const plan: ListenPlan = JSON.parse((await lines.next()).value ?? '')
/** Sockets that are asked for at once. */
const openingMax = 64
/** Of cursors, well below what one message may have. */
const cursorsOfMessage = 8_000
/** What says that it is an enrollment, a commit, or a word of the server. */
const [commitKind, enrollmentKind, infoKind] = ['#commit', '#enrollment', '#info'].map((text) =>
  Buffer.from(text),
)
/** A header is a map of two: its type comes first, behind four bytes. */
const typeAt = 4
const headerBytes = messageFrame('#status', {}).length - 1

/** All sockets of one kind. */
class Readers {
  readonly plan: PlannedStream
  readonly askedMs = nowMs()
  readonly #ready = Promise.withResolvers<void>()
  readonly #done = Promise.withResolvers<void>()
  readonly #bytesOf: number[] = []
  readonly #sentMs: number[] = []
  readonly #receivedMs: number[] = []
  readonly #cursors = new Map<string, number>()
  readonly #counts = new Map<string, number>()
  #waitingReady: number
  #waitingDone: number
  #firstMs = 0
  #lastMs = 0

  constructor(planned: PlannedStream) {
    this.plan = planned
    this.#waitingReady = planned.sockets
    this.#waitingDone = planned.commits === 0 ? 0 : planned.sockets
    if (this.#waitingDone === 0) this.#done.resolve()
  }

  get ready(): Promise<void> {
    return this.#ready.promise
  }

  get done(): Promise<void> {
    return this.#done.promise
  }

  async open(): Promise<void> {
    const { sockets, path, headers, cursors, enrollments } = this.plan
    for (let left = sockets; left > 0; left -= openingMax) {
      const lot = Array.from({ length: Math.min(left, openingMax) }, async () => {
        const take = this.#reader()
        const wire = await StreamWire.open(
          { port: plan.port, path, headers },
          { take, ended: fail },
        )
        if (cursors !== null) sendCursors(wire, cursors)
        if (enrollments === 0) this.#isReady()
      })
      await Promise.all(lot)
    }
  }

  heard(): HeardStream {
    const [bytes = 0, ...others] = this.#bytesOf
    if (others.some((one) => one !== bytes)) fail(new Error('readers got commits that differ'))
    return {
      bytes,
      askedMs: this.askedMs,
      firstMs: this.#firstMs,
      lastMs: this.#lastMs,
      sentMs: this.#sentMs,
      receivedMs: this.#receivedMs,
      cursors: Object.fromEntries(this.#cursors),
      counts: Object.fromEntries(this.#counts),
    }
  }

  toString(): string {
    return `${this.#waitingReady} sockets not ready, ${this.#waitingDone} not done of ${this.plan.sockets}`
  }

  #reader(): (bytes: Buffer, start: number, end: number) => void {
    const socket = this.#bytesOf.push(0) - 1
    const { commits: commitsWanted, reading } = this.plan
    let commits = 0
    let enrollments = 0
    return (bytes, start, end) => {
      if (isOf(commitKind, bytes, start)) {
        commits += 1
        this.#bytesOf[socket] = (this.#bytesOf[socket] ?? 0) + end - start
        if (reading === 'decode') this.#read(bytes.subarray(start + headerBytes, end))
        if (commits === 1) this.#firstMs ||= nowMs()
        if (commits > commitsWanted) fail(new Error('more commits came than there were'))
        if (commits === commitsWanted) this.#isDone()
      } else if (isOf(enrollmentKind, bytes, start)) {
        if (++enrollments === this.plan.enrollments) this.#isReady()
      } else if (!isOf(infoKind, bytes, start)) {
        fail(new Error(`unexpected: ${bytes.toString('latin1', start, end)}`))
      }
    }
  }

  /** Its place in the order of its actor, and when its record says that it was sent. */
  #read(body: Buffer): void {
    const receivedMs = nowMs()
    const commit = decode(body)
    if (!isDataObject(commit)) throw new Error('a commit is no map')
    const { did, seq, ops } = commit
    if (typeof did !== 'string' || typeof seq !== 'number') throw new Error('a commit of nobody')
    if (seq <= (this.#cursors.get(did) ?? this.plan.cursors?.[did] ?? 0)) {
      throw new Error('a commit came again, or out of its order')
    }
    this.#cursors.set(did, seq)
    this.#counts.set(did, (this.#counts.get(did) ?? 0) + 1)
    const sent = /"text":"[^"]* at (\d+\.?\d*)"/.exec(JSON.stringify(ops))?.[1]
    if (sent === undefined) return
    this.#sentMs.push(Number(sent))
    this.#receivedMs.push(receivedMs)
  }

  #isReady(): void {
    if (--this.#waitingReady === 0) this.#ready.resolve()
  }

  #isDone(): void {
    if (--this.#waitingDone > 0) return
    this.#lastMs = nowMs()
    this.#done.resolve()
  }
}

const alarm = setTimeout(() => {
  fail(new Error(`not all came within ${plan.secondsMax} s: ${all.join(', ')}`))
}, plan.secondsMax * 1000)
const before = process.cpuUsage()
const startedMs = performance.now()
const all = plan.streams.map((planned) => new Readers(planned))
for (const readers of all) await readers.open()
await Promise.all(all.map(({ ready }) => ready))
await say('ready')
await Promise.all(all.map(({ done }) => done))
const spent = process.cpuUsage(before)
const share = (spent.user + spent.system) / 1000 / (performance.now() - startedMs)
clearTimeout(alarm)
await say('done')
await lines.next()
await say(JSON.stringify({ streams: all.map((readers) => readers.heard()), share }))
process.exit()

function isOf(kind: Buffer | undefined, bytes: Buffer, start: number): boolean {
  return kind?.every((byte, index) => bytes[start + typeAt + index] === byte) === true
}

function sendCursors(wire: StreamWire, cursors: Readonly<Record<string, number>>): void {
  const left = Object.entries(cursors)
  do {
    const some = Object.fromEntries(left.splice(0, cursorsOfMessage))
    wire.send(JSON.stringify({ cursors: some, more: left.length > 0 }))
  } while (left.length > 0)
}

async function say(line: string): Promise<void> {
  // A pipe takes a long report in pieces.
  await new Promise((resolve) => process.stdout.write(`${line}\n`, resolve))
}

function fail(error: Error): void {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
