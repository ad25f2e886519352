import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import type { BlobPlace, BlobStorage, StoredBlob } from '../../src/store/blob-storage.ts'
import type { BlobKey } from '../../src/store/blob-storage.ts'

/** Bytes that no other call gives, in no time. */
export function some(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  const words = new Uint32Array(bytes.buffer, 0, length >> 2)
  let state = (Math.random() * 2 ** 32) | 1
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
    words[index] = state
  }
  return bytes
}

/** An upload in pieces of these sizes, over and over. */
export async function received(
  blobs: BlobStorage,
  did: Did,
  bytes: Uint8Array,
  pieces: readonly number[] = [65_536],
): Promise<{ readonly kind: 'temporary'; readonly did: Did; readonly key: BlobKey }> {
  const incoming = await blobs.receive(did)
  let count = 0
  for (let at = 0; at < bytes.length;) {
    const size = pieces[count++ % pieces.length] ?? 1
    await incoming.write(bytes.subarray(at, at + size))
    at += size
  }
  await incoming.finish()
  return { kind: 'temporary', did, key: incoming.key }
}

export async function kept(
  blobs: BlobStorage,
  did: Did,
  bytes: Uint8Array,
): Promise<{ readonly kind: 'permanent'; readonly did: Did; readonly cid: Cid }> {
  const temporary = await received(blobs, did, bytes)
  const cid = cidToString(cidForRaw(bytes))
  await blobs.keep(did, temporary.key, cid)
  await blobs.remove(temporary)
  return { kind: 'permanent', did, cid }
}

export async function contentOf(
  blobs: BlobStorage,
  place: BlobPlace,
): Promise<Uint8Array | undefined> {
  return await collect(await blobs.read(place))
}

export async function collect(found: StoredBlob | undefined): Promise<Uint8Array | undefined> {
  return found === undefined ? undefined : await new Response(found.body).bytes()
}
