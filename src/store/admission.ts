import type { Did } from '../atproto/syntax.ts'
import { isListed } from './allow-list.ts'
import { revokeOfInactive } from './revocation.ts'
import type { Statement } from './sql.ts'

/** Who may be enrolled. */
export type Admission =
  | 'everybody'
  | {
      readonly dids: readonly string[]
      /** Origins of PDSes. */
      readonly pds: readonly string[]
      /** The external list whose copy counts, by the SHA-256 of its URI; null for none. */
      readonly list: string | null
    }

/**
 * Turns inactive whom `admission` does not admit, and active again whom it does, with an event for
 * each of them. Sessions end with what makes their owner inactive. Somebody who leaves stays
 * inactive.
 */
export function enforcing(
  admission: Admission,
  { time, did }: { readonly time: string; readonly did: Did | undefined },
): Statement[] {
  const facts =
    admission === 'everybody'
      ? [1, '[]', '[]', null]
      : [0, JSON.stringify(admission.dids), JSON.stringify(admission.pds), admission.list]
  // The events first: they are told from the state before.
  if (did === undefined) {
    return [
      { sql: eventsOfAll, args: [...facts, time] },
      { sql: changeAll, args: facts },
      ...revokeOfInactive(did),
    ]
  }
  return [
    { sql: eventOfOne, args: [...facts, time, did] },
    { sql: changeOne, args: [...facts, did] },
    ...revokeOfInactive(did),
  ]
}

// An array is one parameter, whatever its length: SQLite binds 32,766 at most. Anybody may name any
// PDS in their DID document: one that admits is where they are and where they have signed in.
const isAdmitted = `($1 = 1 or enrollment.did in (select value from json_each($2))
  or ("pdsEndpoint" in (select value from json_each($3))
    and "signInPds" in (select value from json_each($3)))
  or ${isListed({ did: 'enrollment.did', list: '$4' })})`
const changes = `active <> case when ${isAdmitted} then 1 else 0 end
  and (active = 1 or not exists (select 1 from departure d where d.did = enrollment.did))`
const event = `insert into service_event (did, action, time)
  select did, case active when 1 then 'unenroll' else 'enroll' end, $5 from enrollment`
const eventsOfAll = `${event} where ${changes}`
const eventOfOne = `${event} where did = $6 and ${changes}`
const change = 'update enrollment set active = 1 - active'
const changeAll = `${change} where ${changes}`
const changeOne = `${change} where did = $5 and ${changes}`
