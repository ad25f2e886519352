import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import { type Did, parseDid } from '../atproto/syntax.ts'
import type { CallActor } from '../service/calls.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { Outbox } from '../service/outbox.ts'
import type { OutboxState } from '../store/actor-outbox.ts'
import type { DepartureStore } from '../store/departure.ts'
import type { Member, Roster } from '../store/roster.ts'
import { number, text, texts } from '../atproto/members.ts'
import type { Answer, Call, Method } from './xrpc.ts'

export interface OperatorParts {
  readonly enrollments: Enrollments
  readonly roster: Roster
  readonly departures: DepartureStore
  readonly outbox: Outbox
  readonly call: CallActor
  /** Qualified boundaries of this service. */
  readonly boundaries: readonly string[]
}

/** What the operator alone sees and does. @see protocol.md, section 4.5 */
export function operatorMethods(parts: OperatorParts): Record<string, Method> {
  const operator = new OperatorDoor(parts)
  const handlers: Record<string, Method['handle']> = {
    setBoundaries: (call) => operator.setBoundaries(call),
    addBoundary: (call) => operator.addBoundary(call),
    removeBoundary: (call) => operator.removeBoundary(call),
    unenroll: (call) => operator.unenroll(call),
    listMembers: (call) => operator.listMembers(call),
    listBoundaries: () => operator.listBoundaries(),
    listOutbox: (call) => operator.listOutbox(call),
  }
  return Object.fromEntries(
    Object.entries(handlers).map(([name, handle]) => [
      `zone.stratos.admin.${name}`,
      { audience: 'admin', handle },
    ]),
  )
}

class OperatorDoor {
  readonly #parts: OperatorParts

  constructor(parts: OperatorParts) {
    this.#parts = parts
  }

  async setBoundaries({ input, requestId }: Call): Promise<Answer> {
    const did = parseDid(text(input, 'did') ?? '')
    const names = texts(input, 'boundaries')
    const boundaries = await this.#parts.enrollments.setBoundaries(did, names, requestId)
    return { body: { did, boundaries } }
  }

  async addBoundary(call: Call): Promise<Answer> {
    const change = changeOf(call)
    const boundaries = await this.#parts.enrollments.addBoundary(change)
    return { body: { did: change.did, boundaries } }
  }

  async removeBoundary(call: Call): Promise<Answer> {
    const change = changeOf(call)
    const boundaries = await this.#parts.enrollments.removeBoundary(change)
    return { body: { did: change.did, boundaries } }
  }

  async unenroll({ input, requestId }: Call): Promise<Answer> {
    await this.#parts.enrollments.unenroll(parseDid(text(input, 'did') ?? ''), requestId)
    return { body: { success: true } }
  }

  async listMembers({ params }: Call): Promise<Answer> {
    const boundary = text(params, 'boundary')
    const limit = number(params, 'limit') ?? 100
    const after = text(params, 'cursor') ?? ''
    const page = await this.#parts.roster.members({ after, limit, boundary })
    const isKnown = boundary === undefined || this.#parts.boundaries.includes(boundary)
    // One that only people still have is as good as a configured one; a misspelt one is not.
    if (page.length === 0 && after === '' && !isKnown) {
      throw invalidRequest(`this service has no boundary ${JSON.stringify(boundary)}`)
    }
    const members = page.map((member) => this.#shown(member))
    const cursor = page.length < limit ? undefined : page.at(-1)?.did
    return { body: { members, ...(cursor === undefined ? {} : { cursor }) } }
  }

  async listBoundaries(): Promise<Answer> {
    const counted = await this.#parts.roster.boundaries()
    const counts = new Map(counted.map(({ boundary, members }) => [boundary, members]))
    const present = this.#parts.boundaries.map((boundary) => {
      return { boundary, members: counts.get(boundary) ?? 0, configured: true }
    })
    const gone = counted
      .filter(({ boundary }) => !this.#parts.boundaries.includes(boundary))
      .slice(0, goneBoundariesMax)
      .map(({ boundary, members }) => ({ boundary, members, configured: false }))
    return { body: { boundaries: [...present, ...gone] } }
  }

  async listOutbox({ params, requestId }: Call): Promise<Answer> {
    const { roster, outbox } = this.#parts
    const totals = {
      ...(await roster.unsettledCounts()),
      sessionLost: outbox.counts().actors.parked,
    }
    const only = text(params, 'did')
    if (only !== undefined) {
      const actor = await this.#outboxOf(parseDid(only), requestId)
      if (actor !== undefined) return { body: { actors: [actor], totals } }
      throw new XrpcError(404, 'NotEnrolled', `${only} is not enrolled on this service`)
    }
    const limit = number(params, 'limit') ?? 50
    const dids = await roster.unsettled(text(params, 'cursor') ?? '', limit)
    const actors: OutboxShown[] = []
    // One after the other: the databases that are open are for the requests of people.
    for (const did of dids) {
      const actor = await this.#outboxOf(did, requestId)
      if (actor !== undefined && hasWork(actor)) actors.push(actor)
    }
    const cursor = dids.length < limit ? undefined : dids.at(-1)
    return { body: { actors, totals, ...(cursor === undefined ? {} : { cursor }) } }
  }

  /** Undefined where there is neither repo nor departure: a mark may precede and outlive both. */
  async #outboxOf(did: Did, requestId: string): Promise<OutboxShown | undefined> {
    const state = this.#parts.outbox.stateOf(did)
    try {
      const ask = { kind: 'outbox-state', parkedMax } as const
      return shown(did, state, await this.#parts.call(did, requestId, ask))
    } catch (error) {
      if (!(error instanceof XrpcError)) throw error
      if (error.status === 404) {
        const left = await this.#parts.departures.outboxState(did, parkedMax)
        return left === undefined ? undefined : { ...shown(did, state, left), leaving: true }
      }
      if (error.status !== 500) throw error
      // One broken database, of which the shard has told the log, must not hide the others.
      return { did, state: 'unreadable', pending: 0, parkedCount: 0, parked: [] }
    }
  }

  #shown({ hasSession, boundaries, ...facts }: Member): object {
    return {
      ...facts,
      boundaries: boundaries.filter((name) => this.#parts.boundaries.includes(name)),
      session: hasSession ? 'present' : 'lost',
    }
  }
}

interface OutboxShown {
  readonly did: Did
  readonly state: ReturnType<Outbox['stateOf']> | 'unreadable'
  readonly pending: number
  readonly parkedCount: number
  readonly parked: readonly object[]
  readonly nextAttemptAt?: string
  readonly leaving?: true
}

function shown(did: Did, state: OutboxShown['state'], found: OutboxState): OutboxShown {
  const { nextAttemptAtMs, ...rest } = found
  if (nextAttemptAtMs === undefined) return { did, state, ...rest }
  return { did, state, nextAttemptAt: new Date(nextAttemptAtMs).toISOString(), ...rest }
}

function hasWork({ state, pending, parkedCount }: OutboxShown): boolean {
  return state === 'unreadable' || pending > 0 || parkedCount > 0
}

/** Rows of one actor that are shown. */
const parkedMax = 20
/** Boundaries that the configuration has lost. */
const goneBoundariesMax = 1_000

function changeOf({ input, requestId }: Call) {
  const did = parseDid(text(input, 'did') ?? '')
  return { did, boundary: text(input, 'boundary') ?? '', requestId }
}
