import type { Did } from '../atproto/syntax.ts'
import { dropBoundKeys, dropIdleBoundKeys } from './bound-key.ts'
import { dropBrowserSessions } from './browser-session.ts'
import type { Statement } from './sql.ts'

/** Ends everything by which somebody is signed in here, as part of a larger change. */
export function revokeCredentials(did: Did): Statement[] {
  return [
    dropBrowserSessions(did),
    dropBoundKeys(did),
    { sql: 'delete from session where did = $1', args: [did] },
  ]
}

/**
 * Ends what only active members have, of everybody or of one person. Browsers stay signed in: by
 * the page somebody inactive leaves.
 */
export function revokeOfInactive(did: Did | undefined): Statement[] {
  const sessions =
    did === undefined
      ? { sql: dropInactive, args: [] }
      : { sql: `${dropInactive} and did = $1`, args: [did] }
  return [sessions, dropIdleBoundKeys(did)]
}

const dropInactive = `delete from session where not exists (
  select 1 from enrollment e where e.did = session.did and e.active = 1)`
