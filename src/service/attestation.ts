import { encode } from '../atproto/cbor.ts'
import { type ServiceKey, verifySignature } from '../atproto/keys.ts'

/** The service's word that a signing key belongs to a DID that is in these boundaries. */
export interface Attestation {
  readonly sig: { readonly $bytes: string }
  /** did:key of the service. */
  readonly signingKey: string
}

/** What the service says. */
export interface AttestationClaim {
  readonly boundaries: readonly string[]
  readonly did: string
  readonly signingKey: string
}

/** Signs DAG-CBOR of `{boundaries, did, signingKey}`, the boundaries in order. */
export function attest(claim: AttestationClaim, key: ServiceKey): Attestation {
  const sig = key.sign(signedBytes(claim))
  return {
    sig: { $bytes: Buffer.from(sig).toString('base64').replaceAll('=', '') },
    signingKey: key.did,
  }
}

/**
 * Whether the holder of the key said so. That it is the service's own is for the caller to know.
 * @throws KeyError when the key is none
 */
export function isAttested(claim: AttestationClaim, by: { sig: Uint8Array; key: string }): boolean {
  return verifySignature({ didKey: by.key, bytes: signedBytes(claim), sig: by.sig })
}

function signedBytes({ boundaries, did, signingKey }: AttestationClaim): Uint8Array {
  return encode({ boundaries: boundaries.toSorted(), did, signingKey })
}
