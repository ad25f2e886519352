import { Schemas } from '../../src/atproto/lexicon.ts'
import { schemaDocs } from '../../src/atproto/schemas.ts'
import { type Did, type Nsid, parseDid, parseNsid, parseRkey } from '../../src/atproto/syntax.ts'
import { XrpcError } from '../../src/atproto/errors.ts'
import type { WriteRules } from '../../src/service/write-op.ts'

export const serviceDid: Did = parseDid('did:web:stratos.test')
export const collection: Nsid = parseNsid('zone.stratos.feed.post')
export const author: Did = parseDid('did:plc:authorauthorauthorauthor')
export const schemas = new Schemas(schemaDocs)

export const [a, b, c] = [`${serviceDid}/a`, `${serviceDid}/b`, `${serviceDid}/c`] as const

/** A service that has the boundaries a, b and c. */
export const rules: WriteRules = {
  serviceDid,
  fragment: 'atproto_pns',
  boundaries: [a, b, c],
  collections: [collection],
}

export const createdAt = '2026-11-01T10:00:00.000Z'

/** A post in boundary a, as a client writes it, with what a case is about put over it. */
export function post(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return { $type: collection, text: 'hello', boundary: boundary(a), createdAt, ...over }
}

export function boundary(...names: readonly unknown[]) {
  return { values: names.map((value) => ({ value })) }
}

const cid = 'bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq'

export function postUri(rkey: string): string {
  return `at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/${collection}/${parseRkey(rkey)}`
}

export function reference(uri: string) {
  return { uri, cid }
}

export function replyTo(root: string, parent = root) {
  return { root: reference(root), parent: reference(parent) }
}

export function quoteOf(uri: string) {
  return { $type: 'app.bsky.embed.record', record: reference(uri) }
}

export function quoteWithMedia(uri: string) {
  return {
    $type: 'app.bsky.embed.recordWithMedia',
    record: quoteOf(uri),
    media: {
      $type: 'app.bsky.embed.external',
      external: { uri: 'https://example.com', title: '', description: '' },
    },
  }
}

/** The name of the refusal; anything but an `XrpcError` 400 passes on. */
export function refusalOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof XrpcError && error.status === 400) return error.error
    throw error
  }
  return 'accepted'
}
