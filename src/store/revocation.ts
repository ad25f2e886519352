import type { Did } from '../atproto/syntax.ts'
import { dropBrowserSessions } from './browser-session.ts'
import type { Statement } from './sql.ts'

/** Ends everything by which somebody is signed in here, as part of a larger change. */
export function revokeCredentials(did: Did): Statement[] {
  return [dropBrowserSessions(did), { sql: 'delete from session where did = $1', args: [did] }]
}

/**
 * Ends what only active members have, of everybody or of one person. Browsers stay signed in: by
 * the page somebody inactive leaves.
 */
export function revokeOfInactive(did: Did | undefined): Statement[] {
  if (did === undefined) return [{ sql: dropInactive, args: [] }]
  return [{ sql: `${dropInactive} and did = $1`, args: [did] }]
}

const dropInactive = `delete from session where not exists (
  select 1 from enrollment e where e.did = session.did and e.active = 1)`
