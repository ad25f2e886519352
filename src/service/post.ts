import { type DataObject, type DataValue, isDataObject } from '../atproto/data.ts'
import { XrpcError } from '../atproto/errors.ts'

/**
 * What the lexicon of a post cannot say: facets lie inside the text, and a quote with media carries
 * media of a kind that a post itself may carry.
 * @param post one that fits its lexicon
 * @throws XrpcError 400 InvalidRecord, whose message names the path
 */
export function checkPost(post: DataObject): void {
  const { text, facets, embed } = post
  const bytes = typeof text === 'string' ? Buffer.byteLength(text) : 0
  if (Array.isArray(facets)) {
    for (const [number, facet] of facets.entries()) {
      checkFacet(facet, { path: `Record/facets/${number}/index`, bytes })
    }
  }
  if (isDataObject(embed) && embed['$type'] === 'app.bsky.embed.recordWithMedia') {
    checkMedia(embed['media'])
  }
}

export const postCollection = 'zone.stratos.feed.post'

function checkFacet(
  facet: DataValue,
  { path, bytes }: { readonly path: string; readonly bytes: number },
): void {
  const index = isDataObject(facet) ? facet['index'] : undefined
  const { byteStart, byteEnd } = isDataObject(index) ? index : {}
  if (typeof byteStart !== 'number' || typeof byteEnd !== 'number') return
  if (byteEnd <= byteStart) throw refuse(`${path} must end after its start`)
  if (byteEnd > bytes) throw refuse(`${path} must end within the text, which has ${bytes} bytes`)
}

function checkMedia(media: DataValue | undefined): void {
  const type = isDataObject(media) ? media['$type'] : undefined
  if (typeof type === 'string' && mediaTypes.has(type)) return
  throw refuse('Record/embed/media must be images, a video or an external link')
}

const mediaTypes: ReadonlySet<string> = new Set([
  'app.bsky.embed.images',
  'app.bsky.embed.video',
  'app.bsky.embed.external',
])

function refuse(message: string): XrpcError {
  return new XrpcError(400, 'InvalidRecord', message)
}
