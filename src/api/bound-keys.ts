import { invalidRequest, XrpcError } from '../atproto/errors.ts'
import { isThumbprint } from '../atproto/jwk.ts'
import type { Did } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import type { BoundKeys } from '../store/bound-key.ts'
import type { Dpop } from './dpop.ts'
import type { DpopProofs } from './dpop-proof.ts'
import { text } from '../atproto/members.ts'
import type { Answer, Call, Method } from './xrpc.ts'

interface Parts {
  readonly boundKeys: BoundKeys
  readonly proofs: DpopProofs
  readonly dpop: Dpop
}

/** Methods by which people let the key of an app act for them. @see protocol.md, section 3.3 */
export function boundKeyMethods(parts: Parts): Record<string, Method> {
  const { boundKeys, dpop } = parts
  return {
    'zone.stratos.server.bindKey': {
      audience: 'user',
      tokens: 'single-use',
      // A key that is bound must not bind others, nor itself for longer.
      accepts: ['service-auth'],
      screen: (arrival) => dpop.screen(arrival),
      handle: (call) => bindKey(call, parts),
    },
    'zone.stratos.server.listKeys': {
      audience: 'user',
      handle: async (call) => {
        const keys = await boundKeys.all(didOf(call), Date.now())
        return {
          body: {
            keys: keys.map(({ jkt, boundAtMs, expiresAtMs }) => {
              return { jkt, boundAt: timeOf(boundAtMs), expiresAt: timeOf(expiresAtMs) }
            }),
          },
        }
      },
    },
    'zone.stratos.server.unbindKey': {
      audience: 'user',
      handle: async (call) => {
        await boundKeys.unbind(didOf(call), thumbprintIn(call))
        return { body: { success: true } }
      },
    },
  }
}

/** Needs both the person, by their token, and the key, by a proof that is made for that token. */
async function bindKey(call: Call, { boundKeys, proofs }: Parts): Promise<Answer> {
  const did = didOf(call)
  const jkt = thumbprintIn(call)
  const token = (call.request.headers.get('authorization') ?? '').replace(/^\S+ /, '').trim()
  const ath = Bun.SHA256.hash(token, 'base64url')
  // The token counts once, and the proof beside it only.
  const proof = proofs.check(call.request, { header: 'dpop-bind', ath })
  if (proof.thumbprint !== jkt) throw invalidRequest('jkt is not that of the key of the proof')
  const bound = await boundKeys.bind(did, jkt, Date.now())
  if (bound === undefined) {
    throw new XrpcError(403, 'NotEnrolled', `${did} is not enrolled, or inactive, on this service`)
  }
  return { body: { jkt, expiresAt: timeOf(bound.expiresAtMs) } }
}

function didOf({ caller }: Call): Did {
  assert(caller.kind === 'user', 'the door lets people in and nobody else')
  return caller.did
}

function thumbprintIn({ input }: Call): string {
  const jkt = text(input, 'jkt') ?? ''
  if (isThumbprint(jkt)) return jkt
  throw invalidRequest('jkt must be a SHA-256 thumbprint in base64url')
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString()
}
