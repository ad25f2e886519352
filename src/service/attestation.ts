import { encode } from '../atproto/cbor.ts'
import type { ServiceKey } from '../atproto/keys.ts'

/** The service's word that a signing key belongs to a DID that is in these boundaries. */
export interface Attestation {
  readonly sig: { readonly $bytes: string }
  /** did:key of the service. */
  readonly signingKey: string
}

/** Signs DAG-CBOR of `{boundaries, did, signingKey}`, the boundaries in order. */
export function attest(
  claim: {
    readonly boundaries: readonly string[]
    readonly did: string
    readonly signingKey: string
  },
  key: ServiceKey,
): Attestation {
  const { did, signingKey } = claim
  const sig = key.sign(encode({ boundaries: claim.boundaries.toSorted(), did, signingKey }))
  return {
    sig: { $bytes: Buffer.from(sig).toString('base64').replaceAll('=', '') },
    signingKey: key.did,
  }
}
