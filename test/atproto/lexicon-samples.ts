import fc from 'fast-check'
import { XrpcError } from '../../src/atproto/errors.ts'

/** The smallest post that its lexicon accepts, with what a case is about put over it. */
export function post(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    $type: 'zone.stratos.feed.post',
    text: 'hello',
    boundary: { values: [{ value: 'did:web:stratos.test/friends' }] },
    createdAt: '2026-11-01T10:00:00.000Z',
    ...over,
  }
}

const cid = 'bafyreiclp443lavogvhj3d2ob2cxbfuscni2k5jk7bebjzg7khl3esabwq'
const rawCid = 'bafkreiccldh766hwcnuxnf2wh6jgzepf2nlu2lvcllt63eww5p6chi4ity'

export const strongRef = {
  uri: 'at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/zone.stratos.feed.post/3k2yihcrp6f2c',
  cid,
}

export function blob(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return { $type: 'blob', ref: { $link: rawCid }, mimeType: 'image/png', size: 1000, ...over }
}

export function images(...blobs: readonly unknown[]): Record<string, unknown> {
  return {
    $type: 'app.bsky.embed.images',
    images: blobs.map((image) => ({ image, alt: '', aspectRatio: { width: 3, height: 2 } })),
  }
}

export function facet(feature: unknown, index: unknown = { byteStart: 0, byteEnd: 5 }): unknown {
  return { index, features: [feature] }
}

export const tagFeature = { $type: 'app.bsky.richtext.facet#tag', tag: 'cats' }

export function enrollment(over: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    $type: 'zone.stratos.actor.enrollment',
    service: 'https://stratos.test',
    boundaries: [{ value: 'did:web:stratos.test/friends' }],
    signingKey: 'did:key:zDnaembgSGUhZULN2Caob4HLJPaxBh92N7rtH21TErzqf8HQo',
    attestation: {
      sig: { $bytes: Buffer.alloc(64, 7).toBase64({ omitPadding: true }) },
      signingKey: 'did:key:zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w',
    },
    createdAt: '2026-11-01T10:00:00.000Z',
    ...over,
  }
}

/** What `act` was refused with, as `Name: message`; anything but an `XrpcError` 400 passes on. */
export function refusalOf(act: () => unknown): string {
  try {
    act()
  } catch (error) {
    if (error instanceof XrpcError && error.status === 400) {
      return `${error.error}: ${error.message}`
    }
    throw error
  }
  return 'accepted'
}

/** JSON in which names that mean something are frequent. */
export const hostileJson = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<unknown>(null, true, 0, -1, 1.5, 2 ** 53, '', 'a#b#c', '\ud800', strongRef),
    fc.string(),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(
      fc.constantFrom('$type', '$link', '$bytes', 'ref', 'values', 'images', '__proto__', 'cid'),
      tie('value'),
    ),
  ),
})).value

export function bytes(length: number): { $bytes: string } {
  return { $bytes: Buffer.alloc(length, 1).toBase64({ omitPadding: true }) }
}

export function boundaries(count: number): { values: { value: string }[] } {
  return {
    values: Array.from({ length: count }, (_none, index) => ({
      value: `did:web:stratos.test/b${index}`,
    })),
  }
}
