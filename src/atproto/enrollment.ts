import { type Did, isDid, parseNsid } from './syntax.ts'

/** The record on an account's PDS that points to a service. */
export const enrollmentCollection = parseNsid('zone.stratos.actor.enrollment')

/** The service DID as a record key: `%` is not allowed there. */
export function enrollmentRkey(serviceDid: string): string {
  return serviceDid.replaceAll('%3A', ':')
}

/** The service that a record key names; undefined for any other key. */
export function serviceOfRkey(rkey: string): Did | undefined {
  if (!rkey.startsWith(webPrefix)) return undefined
  const did = webPrefix + rkey.slice(webPrefix.length).replaceAll(':', '%3A')
  return isDid(did) ? did : undefined
}

const webPrefix = 'did:web:'
