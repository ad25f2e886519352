import { randomBytes } from 'node:crypto'
import { cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { pathOf } from '../bulk/foreign-posts.ts'
import { ForeignRepo } from '../bulk/foreign-repo.ts'
import { type BlobRef, picture, picturePost, uploadBlob } from '../kit/blob.ts'
import { importRepo, withCar } from '../kit/import.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import { blobSubject, recordSubject, setTakedown } from '../kit/takedown.ts'
import { type Call, textOf } from '../kit/xrpc.ts'
import { Readers } from './readers.ts'

/** A blob of somebody, with the boundaries of each record that names it. */
interface Made {
  readonly owner: string
  readonly records: readonly (readonly string[])[]
}

const ofAlice = (...records: readonly (readonly string[])[]): Made => ({ owner: 'alice', records })
const of = (owner: string, ...boundaries: readonly string[]): Made => ({
  owner,
  records: [boundaries],
})

/** What becomes of some of them is said where it is done. */
const made = {
  'in-a': ofAlice(['a']),
  'in-b': ofAlice(['b']),
  'in-both': ofAlice(['a', 'b']),
  'in-each': ofAlice(['a'], ['b']),
  'in-lost': ofAlice(['d']),
  'of-taken': ofAlice(['a', 'b']),
  'beside-taken': ofAlice(['a'], ['b']),
  taken: ofAlice(['a', 'b']),
  moved: ofAlice(['a']),
  swapped: ofAlice(['a']),
  gone: ofAlice(['a']),
  temporary: ofAlice(),
  'of-tom': of('tom', 'a', 'b'),
  'of-ivy': of('ivy', 'a', 'b'),
  'of-erin': of('erin', 'b'),
  'of-lou': of('lou', 'a', 'b'),
} as const
/** Without bytes here: named by an imported record, of nobody, of somebody else, and none at all. */
const bare = ['missing', 'of-nobody', 'elsewhere', 'absent'] as const

export type BlobName = keyof typeof made | (typeof bare)[number]
export const blobNames: readonly BlobName[] = [...keysOf(made), ...bare]

interface Known {
  readonly did: string
  readonly cid: string
  readonly bytes: Uint8Array
}

/**
 * The people of `Readers`, with blobs of every kind. Lou has left, and mia, who is in the boundary
 * a, has imported a repo whose blobs did not come along.
 */
export class BlobReaders {
  readonly readers: Readers
  readonly #blobs: ReadonlyMap<string, Known>

  private constructor(readers: Readers, blobs: ReadonlyMap<string, Known>) {
    this.readers = readers
    this.#blobs = blobs
  }

  static async start(): Promise<BlobReaders> {
    const blobs = new Map<string, Known>()
    const people = { lou: ['a', 'b'], mia: ['a'] }
    const prepare = (readers: Readers) => prepareBlobs(readers, blobs)
    return new BlobReaders(await Readers.start({ people, prepare }), blobs)
  }

  blob(name: BlobName): Known {
    const found = this.#blobs.get(name)
    if (found === undefined) throw new Error(`there is no blob ${name}`)
    return found
  }

  /** The parameters that name a blob. */
  params(name: BlobName) {
    const { did, cid } = this.blob(name)
    return { did, cid }
  }

  /** The same of a blob that never was. */
  never(name: BlobName) {
    return { did: this.blob(name).did, cid: neverCid() }
  }

  async exact(name: string, nsid: string, call: Call): Promise<string> {
    return await this.readers.exact(name, nsid, call)
  }
}

/** Of bytes that nobody has. */
function neverCid(): string {
  return cidToString(cidForRaw(randomBytes(32)))
}

async function prepareBlobs(readers: Readers, blobs: Map<string, Known>): Promise<void> {
  const { stratos } = readers
  const refs = new Map<string, BlobRef>()
  const uris = new Map<string, string[]>()
  for (const [name, { owner, records }] of Object.entries(made)) {
    const bytes = picture()
    const ref = await uploadBlob(stratos, owner, { bytes })
    refs.set(name, ref)
    blobs.set(name, { did: readers.person(owner).did, cid: ref.ref.$link, bytes })
    const written: string[] = []
    for (const boundaries of records) {
      written.push(await write(readers, owner, { boundaries, ref, text: name }))
    }
    uris.set(name, written)
  }
  const uriOf = (name: keyof typeof made): string => uris.get(name)?.[0] ?? ''
  const update = async (name: keyof typeof made, boundaries: readonly string[], ref?: BlobRef) =>
    await put(readers, uriOf(name), { boundaries, ref: ref ?? refs.get(name), text: name })
  await update('moved', ['b'])
  await update('swapped', ['a'], refs.get('in-a'))
  await call(readers, 'alice', 'zone.stratos.repo.deleteRecord', {
    input: addressOf(uriOf('gone')),
  })
  for (const name of ['of-taken', 'beside-taken'] as const) {
    const subject = recordSubject({ uri: uriOf(name), cid: anyCid })
    await setTakedown(stratos, subject, { applied: true })
  }
  const { did, cid } = blobs.get('taken') ?? { did: '', cid: '' }
  await setTakedown(stratos, blobSubject({ did, cid }), { applied: true })
  await call(readers, 'lou', 'zone.stratos.enrollment.unenroll', { verb: 'POST' })
  blobs.set('missing', await importWithout(readers))
  const nobody = { ...known(blobs, 'in-a'), did: readers.person('stranger').did }
  blobs.set('of-nobody', nobody)
  blobs.set('elsewhere', { ...nobody, did: readers.person('bob').did })
  blobs.set('absent', { ...known(blobs, 'in-a'), cid: neverCid() })
}

/** A record that names a blob whose bytes do not come with it. */
async function importWithout(readers: Readers): Promise<Known> {
  const { did } = readers.person('mia')
  const bytes = picture()
  const cid = cidToString(cidForRaw(bytes))
  const ref: BlobRef = { $type: 'blob', ref: { $link: cid }, mimeType: 'image/png', size: 100 }
  const post = picturePost('imported', [readers.stratos.boundary('a')], ref)
  const car = new ForeignRepo(did, { [pathOf('imported')]: post }).car()
  await call(readers, 'mia', importRepo, withCar(new Uint8Array(car)))
  return { did, cid, bytes }
}

interface Post {
  readonly boundaries: readonly string[]
  readonly ref: BlobRef | undefined
  readonly text: string
}

async function write(readers: Readers, owner: string, post: Post): Promise<string> {
  const { did: repo } = readers.person(owner)
  const input = { repo, collection: postCollection, record: recordOf(readers, post) }
  return textOf(await call(readers, owner, 'zone.stratos.repo.createRecord', { input }), 'uri')
}

async function put(readers: Readers, uri: string, post: Post): Promise<void> {
  const input = { ...addressOf(uri), record: recordOf(readers, post) }
  await call(readers, 'alice', 'zone.stratos.repo.putRecord', { input })
}

function recordOf({ stratos }: Readers, { boundaries, ref, text }: Post) {
  if (ref === undefined) throw new Error('the record is to name a blob')
  return picturePost(
    text,
    boundaries.map((one) => stratos.boundary(one)),
    ref,
  )
}

async function call({ stratos }: Readers, name: string, nsid: string, asked: Call) {
  const { status, body } = await stratos.callAs(name, nsid, asked)
  if (status !== 200) throw new Error(`${nsid} answered ${status} ${JSON.stringify(body)}`)
  return body
}

function known(blobs: ReadonlyMap<string, Known>, name: BlobName): Known {
  const found = blobs.get(name)
  if (found === undefined) throw new Error(`there is no blob ${name}`)
  return found
}

function keysOf<Key extends string>(table: Readonly<Record<Key, unknown>>): Key[] {
  const isKey = (key: string): key is Key => Object.hasOwn(table, key)
  return Object.keys(table).filter(isKey)
}

/** Takedowns of records go by the URI. */
const anyCid = 'bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a'
