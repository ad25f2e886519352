import type { Did } from '../atproto/syntax.ts'
import type { Enrollment } from './service.ts'
import type { Sql } from './sql.ts'

/** A person as the operator sees them. */
export interface Member extends Omit<Enrollment, 'rkey' | 'scope'> {
  /** Whether an OAuth session is kept with which their PDS can be written to. */
  readonly hasSession: boolean
}

export interface MembersQuery {
  /** The last DID of the page before; empty for the first page. */
  readonly after: string
  readonly limit: number
  /** Only those who have it, qualified. */
  readonly boundary?: string | undefined
}

const pageOfAll = 'select did from enrollment where did > $1 order by did limit $2'
const pageOfBoundary = `select o.did from enrollment_boundary o join enrollment i on i.did = o.did
  where o.boundary = $3 and o.did > $1 order by o.did limit $2`
const selectUnsettled = `select did from
  (select did from outbox_dirty union select did from outbox_parked) as unsettled
  where did > $1 order by did limit $2`
const countUnsettled = `select (select count(*) from outbox_dirty) as undelivered,
  (select count(*) from outbox_parked) as parked`

/** service.sqlite as the operator looks through it, page by page in the order of DIDs. */
export class Roster {
  readonly #sql: Sql

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** Everybody with a row, suspended or not, in two queries. */
  async members({ after, limit, boundary }: MembersQuery): Promise<Member[]> {
    const page = boundary === undefined ? pageOfAll : pageOfBoundary
    const args = boundary === undefined ? [after, limit] : [after, limit, boundary]
    const rows = await this.#sql.all<MemberRow>(membersOf(page), ...args)
    type Owned = { readonly did: Did; readonly boundary: string }
    const owned = await this.#sql.all<Owned>(boundariesOf(page), ...args)
    const byDid = Map.groupBy(owned, ({ did }) => did)
    return rows.map((row) => {
      const boundaries = (byDid.get(row.did) ?? []).map(({ boundary }) => boundary)
      return memberOf(row, boundaries)
    })
  }

  /** How many people have each boundary, those that the configuration lacks included. */
  async boundaries(): Promise<{ readonly boundary: string; readonly members: number }[]> {
    return await this.#sql.all(`select boundary, count(*) as members from enrollment_boundary
      group by boundary order by boundary`)
  }

  /** Actors whose outbox may hold rows that are undelivered or were given up. */
  async unsettled(after: string, limit: number): Promise<Did[]> {
    return (await this.#sql.all<{ did: Did }>(selectUnsettled, after, limit)).map(({ did }) => did)
  }

  /** How many of them there are, of either kind. */
  async unsettledCounts(): Promise<{ readonly undelivered: number; readonly parked: number }> {
    type Row = { readonly undelivered: number; readonly parked: number }
    return (await this.#sql.all<Row>(countUnsettled))[0] ?? { undelivered: 0, parked: 0 }
  }
}

type MemberRow = Omit<Member, 'active' | 'hasSession' | 'boundaries'> & {
  readonly active: number
  readonly session: number
}

function memberOf(row: MemberRow, boundaries: readonly string[]): Member {
  const { active, session, ...facts } = row
  return { ...facts, active: active === 1, hasSession: session === 1, boundaries }
}

function membersOf(page: string): string {
  return `select e.did, e."pdsEndpoint", e."signingKey", e."enrolledAt", e.active,
    case when s.did is null then 0 else 1 end as session
    from (${page}) as p join enrollment e on e.did = p.did
    left join oauth_session s on s.did = p.did order by e.did`
}

function boundariesOf(page: string): string {
  return `select b.did, b.boundary from (${page}) as p
    join enrollment_boundary b on b.did = p.did order by b.did, b.boundary`
}
