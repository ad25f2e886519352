import { createHmac } from 'node:crypto'

export type Fields = Readonly<Record<string, unknown>>
export type Sign = (signed: Uint8Array) => Uint8Array | Promise<Uint8Array>

/** Members, or JSON that no serializer would write. */
type Part = Fields | string

/** A compact JWT of exactly these parts, sound or not. */
export async function compact(header: Part, claims: Part, sign: Sign): Promise<string> {
  const signed = [header, claims].map(encoded).join('.')
  return `${signed}.${Buffer.from(await sign(Buffer.from(signed))).toString('base64url')}`
}

function encoded(part: Part): string {
  const json = typeof part === 'string' ? part : JSON.stringify(part)
  return Buffer.from(json).toString('base64url')
}

/** HMAC by a secret that is none: what a verifier does that lets the token choose the algorithm. */
export function hmacBy(secret: Uint8Array | string): Sign {
  return (signed) => createHmac('sha256', secret).update(signed).digest()
}

const orders = {
  ES256: 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  ES256K: 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n,
}
export type Algorithm = keyof typeof orders

/** The other signature that the same equation allows, which AT Protocol forbids. */
export function withHighS(sig: Uint8Array, algorithm: Algorithm): Uint8Array {
  const s = orders[algorithm] - BigInt(`0x${sig.subarray(32).toHex()}`)
  return Buffer.concat([sig.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex')])
}

/** The same numbers in the form of X.509. */
export function asDer(sig: Uint8Array): Uint8Array {
  const integers = [sig.subarray(0, 32), sig.subarray(32)].map((number) => {
    const bare = number.subarray(number.findIndex((byte) => byte !== 0))
    const bytes = (bare[0] ?? 0) > 127 ? Buffer.concat([Buffer.of(0), bare]) : bare
    return Buffer.concat([Buffer.of(2, bytes.length), bytes])
  })
  const body = Buffer.concat(integers)
  return Buffer.concat([Buffer.of(0x30, body.length), body])
}

/** Another base64url character that differs in its lowest bit only. */
export function neighbour(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet.charAt(alphabet.indexOf(character) ^ 1)
}
