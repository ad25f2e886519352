import { KeyError } from '../atproto/keys.ts'
import type { Did } from '../atproto/syntax.ts'
import { type Fetch, FetchFailed, FetchRefused } from '../remote/fetch.ts'
import {
  DidNotResolved,
  type Identities,
  PdsEndpointNotFound,
  SigningKeyNotFound,
} from '../remote/identity.ts'
import { publicRecords } from '../remote/public-records.ts'
import { isAttested } from '../service/attestation.ts'
import { enrollmentCollection, serviceOfRkey } from '../atproto/enrollment.ts'
import { type EnrollmentRecord, readEnrollmentRecord } from '../service/enrollment-record.ts'
import { isFields } from './answers.ts'
import { CheckFailed, type Verdicts } from './verdicts.ts'

export interface ChainParts {
  readonly identities: Identities
  readonly fetch: Fetch
  readonly verdicts: Verdicts
}

export interface Chain {
  readonly did: Did
  /** Of all services that the account is enrolled with, the only one that counts. */
  readonly service: Did | undefined
  /** Tells the services apart: each has a key of its own for the account. */
  readonly isSigner: (key: string) => boolean
}

/**
 * The key that a service says is the account's, where the account in turn says so of the service:
 * from the DID's document over the enrollment record on its PDS to the service's own document.
 * @throws CheckFailed at the first link that does not hold
 */
export async function attestedKey(chain: Chain, parts: ChainParts): Promise<string> {
  const enrolled = await enrollmentsOf(chain, parts)
  const [only] = enrolled
  // A single one is followed in any case: where it breaks tells more than that a key is another.
  const chosen = only !== undefined && enrolled.length === 1 ? [only] : signersOf(enrolled, chain)
  for (const enrollment of chosen) await checkEnrollment(chain.did, enrollment, parts)
  const [first] = chosen
  if (first !== undefined) return first.record.signingKey
  const keys = enrolled.map(({ record }) => record.signingKey).join(', ')
  throw new CheckFailed('signature', `expected one of the commit by one of ${keys}`)
}

interface Enrolled {
  readonly service: Did
  readonly record: EnrollmentRecord
}

async function enrollmentsOf(chain: Chain, parts: ChainParts): Promise<Enrolled[]> {
  const { did, service } = chain
  const { identities, fetch, verdicts } = parts
  const pds = await asked('DID document', () => identities.pdsEndpoint(did))
  verdicts.held('DID document', `${did} lives at ${pds}`)
  const place = { pds, repo: did, collection: enrollmentCollection }
  const records = await asked('enrollment', () => publicRecords(place, fetch))
  const enrolled: Enrolled[] = []
  for (const { rkey, value } of records) {
    const named = serviceOfRkey(rkey)
    const record = readEnrollmentRecord(value)
    if (service !== undefined && named !== service) continue
    if (named !== undefined && record !== undefined) enrolled.push({ service: named, record })
    else verdicts.note('enrollment', `the record at ${shortened(rkey)} is of another shape`)
  }
  if (enrolled.length > 0) return enrolled
  const whom = service === undefined ? 'a service' : service
  throw new CheckFailed('enrollment', `expected a record at ${pds} that names ${whom}; found none`)
}

function signersOf(enrolled: readonly Enrolled[], { isSigner }: Chain): Enrolled[] {
  return enrolled.filter(({ record }) => isSigner(record.signingKey))
}

async function checkEnrollment(
  did: Did,
  { service, record }: Enrolled,
  { identities, verdicts }: ChainParts,
): Promise<void> {
  const { boundaries, signingKey, attestation } = record
  verdicts.held('enrollment', `with ${service} at ${record.service}, key ${signingKey}`)

  const key = await asked('service', () => identities.signingKey(service))
  const document = await asked('service', () => identities.document(service))
  const endpoint = endpointOf(document, service)
  if (endpoint !== record.service) {
    const found = endpoint === undefined ? 'names none' : `says ${shortened(endpoint)}`
    throw new CheckFailed('service', `expected it at ${record.service}; its document ${found}`)
  }
  verdicts.held('service', `${service} is at ${endpoint} and has the key ${key}`)

  if (attestation.signingKey !== key) {
    const other = shortened(attestation.signingKey)
    throw new CheckFailed('attestation', `expected one by ${key}; this is by ${other}`)
  }
  const claim = { boundaries, did, signingKey }
  const by = { sig: attestation.sig, key }
  if (!(await asked('attestation', async () => isAttested(claim, by)))) {
    throw new CheckFailed(
      'attestation',
      `expected a signature by ${key} over ${did}, its key and its boundaries`,
    )
  }
  verdicts.held('attestation', `by ${key}, that the account has this key`)
}

function endpointOf(document: object | undefined, service: Did): string | undefined {
  const entries: unknown = document === undefined ? undefined : Reflect.get(document, 'service')
  if (!Array.isArray(entries)) return undefined
  const names: readonly unknown[] = ['#stratos', `${service}#stratos`]
  const entry = entries.find((one) => isFields(one) && names.includes(one['id']))
  if (!isFields(entry) || entry['type'] !== 'StratosService') return undefined
  const endpoint = entry['serviceEndpoint']
  return typeof endpoint === 'string' ? endpoint : undefined
}

/** What cannot be asked holds no check. */
async function asked<Answer>(check: string, ask: () => Promise<Answer>): Promise<Answer> {
  try {
    return await ask()
  } catch (error) {
    const kinds = [
      DidNotResolved,
      FetchFailed,
      FetchRefused,
      KeyError,
      PdsEndpointNotFound,
      SigningKeyNotFound,
    ]
    if (!(error instanceof Error) || !kinds.some((kind) => error instanceof kind)) throw error
    throw new CheckFailed(check, error.message, { cause: error })
  }
}

/** Of a text that others have chosen. */
function shortened(text: string): string {
  return text.length > shownCharsMax ? `${text.slice(0, shownCharsMax)}...` : text
}

const shownCharsMax = 200
