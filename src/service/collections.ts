import { enrollmentCollection } from '../atproto/enrollment.ts'
import { isNsid, type Nsid, parseNsid } from '../atproto/syntax.ts'

/** What holds private records unless the operator says otherwise. */
export const defaultCollections = [parseNsid('zone.stratos.feed.post')]

/** Public by their nature, or records of this service about itself. @see protocol.md, section 5 */
const neverPrivate = [
  'zone.stratos.actor.',
  'zone.stratos.boundary.',
  'app.bsky.',
  'chat.bsky.',
  'com.atproto.',
]

/**
 * Whether a collection holds private records here.
 * @param patterns NSIDs, or the beginning of some with `.*`
 */
export function isPrivate(collection: string, patterns: readonly string[]): boolean {
  if (isNeverPrivate(collection)) return false
  return patterns.some((pattern) =>
    pattern.endsWith('.*') ? collection.startsWith(pattern.slice(0, -1)) : pattern === collection,
  )
}

/** Also of a pattern, all of whose collections are so. */
export function isNeverPrivate(pattern: string): boolean {
  return neverPrivate.some((prefix) => pattern.startsWith(prefix))
}

/** `com.example.thing`, or `com.example.*` for all that begin so. */
export function isCollectionPattern(text: string): boolean {
  if (!text.endsWith('.*')) return isNsid(text)
  const authority = text.slice(0, -2)
  // Any name makes an NSID of an authority of two parts or more.
  return authority.includes('.') && isNsid(`${authority}.any`)
}

/**
 * The private collections whose names are known: those that are configured by name, and those of
 * `known` that a pattern admits. A PDS grants writing to collections by name only.
 */
export function namedCollections(patterns: readonly string[], known: readonly string[]): Nsid[] {
  const named = [...patterns.filter((pattern) => !pattern.endsWith('.*')), ...known]
  return [...new Set(named)].filter((nsid) => isPrivate(nsid, patterns)).map(parseNsid)
}

/** Collections of a person's public repo that this service writes to: stubs stand in the private ones. */
export function publicCollections(named: readonly Nsid[]): Nsid[] {
  return [enrollmentCollection, ...named]
}
