/** A signed JWT, taken apart and not yet believed. */
export interface Jwt {
  readonly header: JsonObject
  readonly claims: JsonObject
  /** What the signature covers. */
  readonly signed: Uint8Array
  readonly sig: Uint8Array
}

export type JsonObject = Readonly<Record<string, unknown>>

/**
 * The one reading that a compact JWT allows, or nothing: base64url in its canonical form, UTF-8,
 * objects without a member that is given twice.
 * @see https://www.rfc-editor.org/rfc/rfc7515#section-3.1
 */
export function readJwt(token: string): Jwt | undefined {
  if (token.length > tokenCharsMax) return undefined
  const parts = token.split('.')
  const [headerText, claimsText, sigText] = parts
  if (parts.length !== 3) return undefined
  if (headerText === undefined || claimsText === undefined || sigText === undefined) {
    return undefined
  }
  const header = readObject(headerText)
  const claims = readObject(claimsText)
  const sig = readBase64Url(sigText)
  if (header === undefined || claims === undefined || sig === undefined) return undefined
  return { header, claims, signed: Buffer.from(`${headerText}.${claimsText}`), sig }
}

/** What a compact JWT says that it is. Nothing where it says nothing, or cannot be read. */
export function jwtType(token: string): unknown {
  if (token.length > tokenCharsMax) return undefined
  return readObject(token.slice(0, Math.max(0, token.indexOf('.'))))?.['typ']
}

/** Seconds since the epoch. */
export function isTime(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
}

/** Those of a PDS have some 400. The longest DIDs in `iss` and `aud` still fit. */
const tokenCharsMax = 8192

/** Padding, other characters, and left-over bits are refused: they make a second text for a token. */
function readBase64Url(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

function readObject(text: string): JsonObject | undefined {
  const bytes = readBase64Url(text)
  if (bytes === undefined) return undefined
  let json: string
  let value: unknown
  try {
    json = strictUtf8.decode(bytes)
    value = JSON.parse(json)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
  // Of two members of one name the parser keeps the last, where another reader keeps the first.
  if (countMembers(value) !== countNames(json)) return undefined
  return Object.fromEntries(Object.entries(value))
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Every string of a valid JSON text in turn; those before a colon are names of members. */
function countNames(json: string): number {
  let count = 0
  for (const [, colon] of json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?/g)) {
    if (colon !== undefined) count++
  }
  return count
}

function countMembers(root: object): number {
  let count = 0
  const rest: object[] = [root]
  for (let at = rest.pop(); at !== undefined; at = rest.pop()) {
    if (!Array.isArray(at)) count += Object.keys(at).length
    for (const value of Object.values(at)) {
      if (typeof value === 'object' && value !== null) rest.push(value)
    }
  }
  return count
}
