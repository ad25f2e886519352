import { type Did, parseDid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import type { Enrollments } from '../service/enrollment.ts'
import type { SessionSecrets } from '../service/session-secrets.ts'
import type { Session, Sessions } from '../store/session.ts'
import type { Caller } from './caller.ts'
import { text } from '../atproto/members.ts'
import { unauthorized } from './service-auth.ts'
import type { SessionTokens } from './session-token.ts'
import type { Call, Method } from './xrpc.ts'

export interface SessionParts {
  readonly tokens: SessionTokens
  readonly secrets: SessionSecrets
  readonly tokenSessions: Sessions
  readonly enrollments: Enrollments
  readonly now: () => number
  readonly log: Log
}

/** How sessions begin and end, by their owner and by the operator. @see protocol.md, section 4.4 */
export function sessionMethods(parts: SessionParts): Record<string, Method> {
  const { tokens, tokenSessions } = parts
  return {
    'zone.stratos.server.createSession': {
      audience: 'user',
      tokens: 'single-use',
      accepts: ['service-auth', 'cookie', 'development'],
      handle: async ({ caller }) => {
        assert(caller.kind === 'user', 'the door lets people in and nobody else')
        const { did } = caller
        const { token, expiresAtMs } = await tokens.issue(did)
        return { body: { accessJwt: token, did, expiresAt: timeOf(expiresAtMs) } }
      },
    },
    'zone.stratos.server.getSession': {
      audience: 'user',
      accepts: ['session'],
      handle: async ({ caller }) => {
        const { did, expiresAtMs } = sessionOf(caller)
        const boundaries = await boundariesOf(did, parts)
        return { body: { did, expiresAt: timeOf(expiresAtMs), boundaries } }
      },
    },
    'zone.stratos.server.deleteSession': {
      audience: 'user',
      accepts: ['session'],
      handle: async ({ caller }) => {
        await tokenSessions.drop(sessionOf(caller).digest)
        return { body: { success: true } }
      },
    },
    'zone.stratos.admin.revokeSessions': {
      audience: 'admin',
      handle: (call) => revoke(call, parts),
    },
    'zone.stratos.admin.rotateSessionSecret': {
      audience: 'admin',
      handle: async () => {
        const { kid, formerUntilMs } = await parts.secrets.rotate()
        return { body: { kid, formerUntil: timeOf(formerUntilMs) } }
      },
    },
  }
}

async function revoke({ input, requestId }: Call, { tokenSessions, now, log }: SessionParts) {
  const did = parseDid(text(input, 'did') ?? '')
  const revoked = await tokenSessions.revoke(did, now())
  log.info('sessions.revoked', { did, requestId, ...revoked })
  return { body: { did, ...revoked } }
}

function sessionOf(caller: Caller): Session {
  const session = caller.kind === 'user' ? caller.session : undefined
  assert(session !== undefined, 'the door takes sessions and nothing else')
  return session
}

async function boundariesOf(did: Did, { enrollments }: SessionParts) {
  const enrollment = await enrollments.find(did)
  // The membership ended after the session was looked at, and the session with it.
  if (enrollment === undefined) throw unauthorized('InvalidToken', 'the session has ended')
  return enrollment.boundaries.map((value) => ({ value }))
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}
