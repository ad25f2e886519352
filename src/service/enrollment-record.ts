import { boundariesOfPersonMax } from './boundary.ts'

/** What an account's public record says of a service. It proves nothing before it is checked. */
export interface EnrollmentRecord {
  /** Public address of the service. */
  readonly service: string
  /** Qualified; empty where the operator does not publish them. */
  readonly boundaries: readonly string[]
  /** did:key that signs the commits of the account's private repo. */
  readonly signingKey: string
  readonly attestation: { readonly sig: Uint8Array; readonly signingKey: string }
}

/** The record in what a PDS answered; undefined for what has another shape. */
export function readEnrollmentRecord(value: unknown): EnrollmentRecord | undefined {
  const { service, boundaries = [], signingKey, attestation } = fieldsOf(value)
  const { sig, signingKey: serviceKey } = fieldsOf(attestation)
  const { $bytes: base64 } = fieldsOf(sig)
  if (!isText(service) || !isText(signingKey) || !isText(serviceKey) || !isText(base64)) {
    return undefined
  }
  if (!Array.isArray(boundaries) || boundaries.length > boundariesOfPersonMax) return undefined
  const names = boundaries.map((boundary) => fieldsOf(boundary)['value'])
  if (!names.every(isText)) return undefined
  const attested = { sig: Buffer.from(base64, 'base64'), signingKey: serviceKey }
  return { service, boundaries: names, signingKey, attestation: attested }
}

const textCharsMax = 2048

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
    ? Object.fromEntries(Object.entries(value))
    : {}
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= textCharsMax
}
