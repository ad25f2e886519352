import { constants } from 'node:fs'
import { copyFile, link, rename, rm, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Cid, isCid } from '../atproto/cid.ts'
import { type Did, isDid } from '../atproto/syntax.ts'
import { assert } from '../lib/assert.ts'
import { failedWith, ignoreAbsent, isAbsent } from '../lib/file-error.ts'
import { makeFolder } from '../lib/files.ts'
import { IncomingFile, unfinishedSuffix } from './blob-disk-incoming.ts'
import { readFileRange } from './blob-disk-read.ts'
import { fileFacts, namesIn, syncContent, syncNames } from './blob-names.ts'
import {
  BlobMissing,
  type BlobKey,
  type BlobPlace,
  type ByteRange,
  type IncomingBlob,
  isBlobKey,
  type ListedBlob,
  makeBlobKey,
  type MovableBlobs,
  type StoredBlob,
} from './blob-storage.ts'

/**
 * Blobs as files below the data folder: `blobs/{did}/{cid}`, `blobs/temp/{did}/{key}` and
 * `blobs/quarantine/{did}/{cid}`.
 *
 * A name without a suffix always has all its bytes on disk: they are written under another name,
 * synced, and renamed. DIDs are folder names as they are, as for actors; all begin with `did:`, so
 * that none is `temp` or `quarantine`.
 */
export class DiskBlobs implements MovableBlobs {
  readonly #root: string
  readonly #links: 'hard' | 'none'

  /** @param links `none` where the file system has no hard links */
  constructor(dataDir: string, links: 'hard' | 'none' = 'hard') {
    this.#root = join(dataDir, 'blobs')
    this.#links = links
  }

  async receive(did: Did): Promise<IncomingBlob> {
    return await this.receiveAs(did, makeBlobKey())
  }

  async receiveAs(did: Did, key: BlobKey): Promise<IncomingBlob> {
    const path = this.#path({ kind: 'temporary', did, key })
    makeFolder(dirname(path))
    return await IncomingFile.create(path, key)
  }

  async keep(did: Did, key: BlobKey, cid: Cid): Promise<void> {
    const from = this.#path({ kind: 'temporary', did, key })
    const to = this.#path({ kind: 'permanent', did, cid })
    const folder = this.#folder('permanent', did)
    makeFolder(folder)
    try {
      await (this.#links === 'hard' ? link(from, to) : this.#copy(did, from, to))
    } catch (error) {
      if (failedWith(error, ...linkless)) await this.#copy(did, from, to)
      else if (!isAbsent(error) && !failedWith(error, 'EEXIST')) throw error
    }
    if ((await fileFacts(to)) === undefined) {
      throw new BlobMissing(`no bytes of ${cid} are there to keep`)
    }
    // Also when it was there: whoever made it may have been cut off before this.
    await syncNames(folder)
  }

  async quarantine(did: Did, cid: Cid): Promise<void> {
    await this.#move(did, cid, ['permanent', 'quarantined'])
  }

  async restore(did: Did, cid: Cid): Promise<void> {
    await this.#move(did, cid, ['quarantined', 'permanent'])
  }

  async read(place: BlobPlace, range?: ByteRange): Promise<StoredBlob | undefined> {
    return await readFileRange(this.#path(place), range)
  }

  async remove(place: BlobPlace): Promise<void> {
    const path = this.#path(place)
    await unlink(path).catch(ignoreAbsent)
    if (place.kind === 'temporary') await unlink(path + unfinishedSuffix).catch(ignoreAbsent)
    await syncNames(this.#folder(place.kind, place.did))
  }

  async removeAll(did: Did): Promise<void> {
    for (const kind of kinds) {
      const folder = this.#folder(kind, did)
      await rm(folder, { recursive: true, force: true }).catch(ignoreAbsent)
      await syncNames(join(folder, '..'))
    }
  }

  async *places(kind: BlobPlace['kind']): AsyncGenerator<ListedBlob> {
    for await (const did of this.#didsOf(kind)) {
      const folder = this.#folder(kind, did)
      for (const name of await namesIn(folder)) {
        const place = placeOf(kind, did, name)
        if (place === undefined) continue
        const facts = await fileFacts(join(folder, name))
        // Gone since its name was read.
        if (facts === undefined) continue
        yield { place, ...facts }
      }
    }
  }

  async *dids(): AsyncGenerator<Did> {
    for (const kind of kinds) yield* this.#didsOf(kind)
  }

  async *strangers(): AsyncGenerator<string> {
    const known = new Set([...parents.values()].flat())
    for (const kind of kinds) {
      const parent = this.#parent(kind)
      for (const name of await namesIn(parent)) {
        if (!isDid(name)) {
          if (kind !== 'permanent' || !known.has(name)) yield join(parent, name)
          continue
        }
        for (const file of await namesIn(join(parent, name))) {
          if (placeOf(kind, name, file) === undefined) yield join(parent, name, file)
        }
      }
    }
  }

  async close(): Promise<void> {
    // Holds nothing: each call opens what it needs.
  }

  /** For file systems without links. Half a copy is an unfinished upload, and swept like one. */
  async #copy(did: Did, from: string, to: string): Promise<void> {
    const half = this.#path({ kind: 'temporary', did, key: makeBlobKey() }) + unfinishedSuffix
    try {
      await copyFile(from, half, constants.COPYFILE_EXCL)
      await syncContent(half)
      await rename(half, to)
    } finally {
      await rm(half, { force: true })
    }
  }

  async #move(did: Did, cid: Cid, [from, to]: readonly [Kept, Kept]): Promise<void> {
    const source = this.#path({ kind: from, did, cid })
    if ((await fileFacts(source)) !== undefined) {
      makeFolder(this.#folder(to, did))
      await rename(source, this.#path({ kind: to, did, cid })).catch(ignoreAbsent)
      // Renaming one of two links onto the other does nothing, and reports success.
      await unlink(source).catch(ignoreAbsent)
    }
    // The new name first: a power cut may leave both, but not neither.
    await syncNames(this.#folder(to, did))
    await syncNames(this.#folder(from, did))
  }

  async *#didsOf(kind: BlobPlace['kind']): AsyncGenerator<Did> {
    for (const name of await namesIn(this.#parent(kind))) if (isDid(name)) yield name
  }

  #parent(kind: BlobPlace['kind']): string {
    return join(this.#root, ...(parents.get(kind) ?? []))
  }

  #folder(kind: BlobPlace['kind'], did: Did): string {
    // Types are gone at run time, and a path that leaves the folder would be the end of secrets.
    assert(isDid(did), 'a folder of blobs is named by a DID')
    return join(this.#parent(kind), did)
  }

  #path(place: BlobPlace): string {
    const folder = this.#folder(place.kind, place.did)
    if (place.kind !== 'temporary') {
      assert(isCid(place.cid), 'a blob is named by a CID')
      return join(folder, place.cid)
    }
    assert(isBlobKey(place.key), 'temporary bytes are named by a key')
    return join(folder, place.key)
  }
}

type Kept = 'permanent' | 'quarantined'

const kinds = ['temporary', 'permanent', 'quarantined'] as const
const parents: ReadonlyMap<BlobPlace['kind'], readonly string[]> = new Map([
  ['temporary', ['temp']],
  ['permanent', []],
  ['quarantined', ['quarantine']],
])

/** Hard links are refused, or there are too many of this file. */
const linkless = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV']

function placeOf(kind: BlobPlace['kind'], did: Did, name: string): BlobPlace | undefined {
  if (kind !== 'temporary') return isCid(name) ? { kind, did, cid: name } : undefined
  const key = name.endsWith(unfinishedSuffix) ? name.slice(0, -unfinishedSuffix.length) : name
  return isBlobKey(key) ? { kind, did, key } : undefined
}
