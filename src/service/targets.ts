import { XrpcError } from '../atproto/errors.ts'

/** Boundaries of the records that a write points to, by URI, where its author may see them. */
export type Targets = Readonly<Record<string, readonly string[]>>

/** URIs that a record answers or quotes. Works on any shape: the record is not yet checked. */
export function targetUris(record: unknown): string[] {
  const { replies, embeds } = references(record)
  return [...new Set([...replies, ...embeds])].filter((uri) => uri !== '')
}

/** One reference of a record to another, for threads. */
export interface Link {
  readonly path: 'reply.root' | 'reply.parent' | 'embed'
  readonly uri: string
}

/** What a record that passed the rules answers and quotes. */
export function linksOf(record: unknown): Link[] {
  const { replies, embeds } = references(record)
  const [root, parent] = replies
  return [
    ...(root === undefined ? [] : [{ path: 'reply.root', uri: root } as const]),
    ...(parent === undefined ? [] : [{ path: 'reply.parent', uri: parent } as const]),
    ...embeds.map((uri) => ({ path: 'embed', uri }) as const),
  ]
}

interface TargetFacts {
  readonly boundaries: readonly string[]
  readonly targets: Targets
  /** The record that this one replaces. */
  readonly before?: { readonly record: object; readonly boundaries: readonly string[] } | undefined
}

/**
 * The rules that keep private threads private: both ends of a reply and whatever is quoted are
 * private records here that the author may see, and a reply reaches nobody whom its parent does not.
 * A record that pointed there before may do so when the target is gone, if its reach does not grow.
 * @throws XrpcError 400 CrossNamespaceReply, ReplyBoundaryEscalation, CrossNamespaceEmbed
 */
export function checkTargets(record: unknown, facts: TargetFacts): void {
  const { replies, embeds } = references(record)
  const { boundaries, targets, before } = facts
  const pointed = references(before?.record)
  const reachGrows = !boundaries.every((name) => before?.boundaries.includes(name) === true)
  const stands = (uri: string, old: readonly string[]) =>
    Object.hasOwn(targets, uri) || (old.includes(uri) && !reachGrows)
  const sameThread = Bun.deepEquals(replies, pointed.replies) ? replies : []
  if (!replies.every((uri) => stands(uri, sameThread))) {
    throw new XrpcError(
      400,
      'CrossNamespaceReply',
      'a reply must answer a private record of this service that you can read',
    )
  }
  const parent = replies.at(-1)
  const reach = parent === undefined ? undefined : own(targets, parent)
  if (reach !== undefined) checkReach(boundaries, reach)
  if (!embeds.every((uri) => stands(uri, pointed.embeds))) {
    throw new XrpcError(
      400,
      'CrossNamespaceEmbed',
      'a quote must point to a private record of this service that you can read',
    )
  }
}

/** @throws XrpcError 400 ReplyBoundaryEscalation where a reply reaches whom its parent does not */
export function checkReach(boundaries: readonly string[], ofParent: readonly string[]): void {
  if (boundaries.every((name) => ofParent.includes(name))) return
  throw new XrpcError(
    400,
    'ReplyBoundaryEscalation',
    'a reply must not name a boundary that the post it answers does not name',
  )
}

/** No member that every object has. */
function own(targets: Targets, uri: string): readonly string[] | undefined {
  return Object.hasOwn(targets, uri) ? targets[uri] : undefined
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
