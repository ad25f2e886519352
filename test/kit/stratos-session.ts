import type { SeededStratos } from './seeded.ts'
import { type Answer, isFields, textOf } from './xrpc.ts'

// Sessions of the service, each as the value of an Authorization header.

/** One that begins now. */
export async function beginSession(stratos: SeededStratos, name: string): Promise<string> {
  const answer = await stratos.callAs(name, 'zone.stratos.server.createSession', { verb: 'POST' })
  if (answer.status !== 200) throw new Error(`createSession answered ${answer.status}`)
  return `Bearer ${textOf(answer.body, 'accessJwt')}`
}

/** One that has ended before its time. */
export async function endedSession(stratos: SeededStratos, name: string): Promise<string> {
  const authorization = await beginSession(stratos, name)
  const nsid = 'zone.stratos.server.deleteSession'
  const answer = await stratos.call(nsid, { verb: 'POST', authorization })
  if (answer.status !== 200) throw new Error(`deleteSession answered ${answer.status}`)
  return authorization
}

export function readSession(stratos: SeededStratos, authorization: string): Promise<Answer> {
  return stratos.call('zone.stratos.server.getSession', { authorization })
}

/** The same with another signature. */
export function altered(authorization: string): string {
  const at = authorization.lastIndexOf('.') + 1
  const other = authorization[at] === 'A' ? 'B' : 'A'
  return authorization.slice(0, at) + other + authorization.slice(at + 1)
}

/** What it is signed by, and what it is found by. */
export function namesIn(authorization: string): { readonly kid: string; readonly sid: string } {
  const [header, claims] = authorization
    .replace('Bearer ', '')
    .split('.')
    .slice(0, 2)
    .map((part): unknown => JSON.parse(Buffer.from(part, 'base64url').toString('utf8')))
  if (!isFields(header) || !isFields(claims)) throw new Error('a token has a header and claims')
  return { kid: textOf(header, 'kid'), sid: textOf(claims, 'sid') }
}
