import { fileTypeFromBuffer } from 'file-type'

/** The type that the first bytes show; else the one that the sender says, where it is one. */
export async function blobType(first: Uint8Array, said: string | null): Promise<string> {
  const shown = (await fileTypeFromBuffer(first))?.mime
  if (shown !== undefined) return shown
  const claimed = said?.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return mediaType.test(claimed) && claimed.length <= charsMax ? claimed : unknownType
}

/** So much of its beginning tells what a blob is. */
export const beginningBytes = 4_100

export const unknownType = 'application/octet-stream'
const mediaType = /^[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9][a-z0-9!#$&^_.+-]*$/
const charsMax = 127
