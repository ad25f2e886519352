/** Two non-empty parts of the characters that collections and record keys are made of. */
export function isValidMstKey(key: string): boolean {
  return key.length <= keyBytesMax && keyPattern.test(key)
}

/** @throws MstError */
export function checkKey(key: string): void {
  if (!isValidMstKey(key)) throw new MstError('a key must be collection/rkey')
}

/** Leading zero bits of the key's SHA-256, in pairs. */
export function keyHeight(key: string): number {
  const hash = new Uint8Array(32)
  Bun.SHA256.hash(key, hash)
  let zeros = 0
  for (const byte of hash) {
    zeros += Math.clz32(byte) - 24
    if (byte !== 0) break
  }
  return zeros >> 1
}

/** In characters, which in keys are bytes. */
export function commonPrefixLength(a: string, b: string): number {
  const end = Math.min(a.length, b.length)
  let length = 0
  while (length < end && a.charCodeAt(length) === b.charCodeAt(length)) length++
  return length
}

/** A key, or the bytes of a node, that no tree may hold; keys or nodes in a wrong place. */
export class MstError extends Error {
  override readonly name = 'MstError'
}

export const keyBytesMax = 1024
const keyPattern = /^[a-zA-Z0-9_~\-:.]+\/[a-zA-Z0-9_~\-:.]+$/
