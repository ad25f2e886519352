import type { Did } from '../atproto/syntax.ts'
import type { Fetch } from '../remote/fetch.ts'
import type { Identities } from '../remote/identity.ts'
import type { FollowedService } from './follower.ts'
import { repoPages } from './repo-source.ts'
import { ServiceCalls, ServiceRefused } from './service-calls.ts'

export interface ReaderParts {
  /** The header Authorization of an AppView for one method of a service. */
  readonly authorize: (service: Did, lxm: string) => Promise<string>
  readonly identities: Identities
  /** By addresses that the operator named, and by those that a document names. */
  readonly fetches: { readonly named: Fetch; readonly found: Fetch }
  readonly allowPrivateNetwork: boolean
}

/** A service by its DID. @param origin where it is, if its document is not to say so */
export function followedService(
  { did, origin }: { readonly did: Did; readonly origin: string | undefined },
  { identities, fetches, allowPrivateNetwork, ...reader }: ReaderParts,
): FollowedService {
  const fetch = origin === undefined ? fetches.found : fetches.named
  const url = async () => origin ?? (await endpointOf(did, identities))
  const authorize = async (lxm: string) => await reader.authorize(did, lxm)
  const access = async (signal: AbortSignal) => {
    return { serviceUrl: await url(), fetch, authorization: authorize, signal }
  }
  const calls = async () => new ServiceCalls(await access(AbortSignal.timeout(answerMsMax)))
  return {
    did,
    allowPrivateNetwork: allowPrivateNetwork || origin !== undefined,
    url,
    authorize,
    pages: async function* (of, signal) {
      yield* repoPages(of, await access(signal))
    },
    standing: async (of) => {
      const asking = await calls()
      const answer = await asking.ask({ lxm: statusMethod, params: { did: of } })
      return standingIn(answer)
    },
    refusal: async (lxm) => {
      const asking = await calls()
      try {
        // Without an upgrade there is no other answer than why there is none.
        await asking.ask({ lxm, params: { commits: 'true' } })
        return { status: 200, message: 'no WebSocket' }
      } catch (error) {
        if (!(error instanceof ServiceRefused)) throw error
        return { status: error.status, message: error.message }
      }
    },
  }
}

const statusMethod = 'zone.stratos.enrollment.status'
const answerMsMax = 20_000

function standingIn(answer: object) {
  const { enrolled, boundaries }: { enrolled?: unknown; boundaries?: unknown } = answer
  if (typeof enrolled !== 'boolean') throw new Error(`${statusMethod} does not say how they stand`)
  const named: readonly unknown[] = Array.isArray(boundaries) ? boundaries : []
  return { isEnrolled: enrolled, boundaries: named.flatMap(valueOf) }
}

function valueOf(boundary: unknown): string[] {
  if (typeof boundary !== 'object' || boundary === null || !('value' in boundary)) return []
  return typeof boundary.value === 'string' ? [boundary.value] : []
}

/** @throws Error where the document names no service of ours */
async function endpointOf(did: Did, identities: Identities): Promise<string> {
  const document = await identities.document(did)
  const services: unknown = document !== undefined && 'service' in document && document.service
  for (const entry of Array.isArray(services) ? services : []) {
    const { id, serviceEndpoint }: { id?: unknown; serviceEndpoint?: unknown } = entry
    if (id !== '#stratos' && id !== `${did}#stratos`) continue
    if (typeof serviceEndpoint === 'string' && URL.canParse(serviceEndpoint)) {
      return new URL(serviceEndpoint).origin
    }
  }
  throw new Error(`the document of ${did} names no #stratos service`)
}
