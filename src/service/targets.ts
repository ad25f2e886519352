import { XrpcError } from '../atproto/errors.ts'

/** Boundaries of the records that a write points to, by URI, where its author may see them. */
export type Targets = Readonly<Record<string, readonly string[]>>

/** URIs that a record answers or quotes. Works on any shape: the record is not yet checked. */
export function targetUris(record: unknown): string[] {
  const { replies, embeds } = references(record)
  return [...new Set([...replies, ...embeds])].filter((uri) => uri !== '')
}

/**
 * The rules that keep private threads private: both ends of a reply and whatever is quoted are
 * private records here that the author may see, and a reply reaches nobody whom its parent does not.
 * @throws XrpcError 400 CrossNamespaceReply, ReplyBoundaryEscalation, CrossNamespaceEmbed
 */
export function checkTargets(
  record: unknown,
  facts: { readonly boundaries: readonly string[]; readonly targets: Targets },
): void {
  const { replies, embeds } = references(record)
  for (const uri of replies) {
    if (!Object.hasOwn(facts.targets, uri)) {
      throw new XrpcError(
        400,
        'CrossNamespaceReply',
        'a reply must answer a private record of this service that you can read',
      )
    }
  }
  const parent = replies.at(-1)
  const reach = parent === undefined ? undefined : facts.targets[parent]
  if (reach !== undefined && !facts.boundaries.every((name) => reach.includes(name))) {
    throw new XrpcError(
      400,
      'ReplyBoundaryEscalation',
      'a reply must not name a boundary that the post it answers does not name',
    )
  }
  for (const uri of embeds) {
    if (!Object.hasOwn(facts.targets, uri)) {
      throw new XrpcError(
        400,
        'CrossNamespaceEmbed',
        'a quote must point to a private record of this service that you can read',
      )
    }
  }
}

/** `replies` holds root and parent, in this order; a missing or odd URI counts as ''. */
function references(record: unknown): { replies: string[]; embeds: string[] } {
  const reply = member(record, 'reply')
  const replies =
    reply === undefined
      ? []
      : [text(member(member(reply, 'root'), 'uri')), text(member(member(reply, 'parent'), 'uri'))]
  const embed = member(record, 'embed')
  // recordWithMedia wraps the reference in an object of the plain record embed's shape. The type
  // decides: a member too many must not draw the look away from the reference that readers follow.
  const wrapped = member(embed, '$type') === 'app.bsky.embed.recordWithMedia'
  const quoted = member(embed, 'record')
  const reference = wrapped ? member(quoted, 'record') : quoted
  const embeds = quoted === undefined ? [] : [text(member(reference, 'uri'))]
  return { replies, embeds }
}

function member(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
  return Reflect.get(value, name)
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}
