import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type Cid, cidForRaw, cidToString } from '../../src/atproto/cid.ts'
import { ServiceKey } from '../../src/atproto/keys.ts'
import { parseRkey } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { BlobSweep } from '../../src/service/blob-sweep.ts'
import type { Enrollments } from '../../src/service/enrollment.ts'
import type { BlobFacts } from '../../src/store/actor-blobs.ts'
import type { BlobKey, BlobStorage } from '../../src/store/blob-storage.ts'
import { keptBytes, type KeptBytes } from '../kit/blob-bytes.ts'
import { contentOf, received } from '../store/blobs.ts'
import { Delivering, type Person } from './delivering.ts'
import { collection, post } from './posts.ts'

export interface UploadedFacts extends BlobFacts {
  readonly key: BlobKey
  readonly bytes: Uint8Array
}

/** Somebody's blobs: real rows, real bytes, and a place to step in between any two steps. */
export class BlobWorld implements AsyncDisposable {
  readonly world: Delivering
  readonly alice: Person
  readonly enrollments: Enrollments
  readonly sweep: BlobSweep
  /** What the sweep takes for now. */
  nowMs = Date.now()

  private constructor(world: Delivering, alice: Person) {
    this.world = world
    this.alice = alice
    this.enrollments = world.enrollments(ServiceKey.generate())
    this.sweep = this.freshSweep()
  }

  static async open(folder: string): Promise<BlobWorld> {
    const world = await Delivering.open(join(folder, crypto.randomUUID()))
    return new BlobWorld(world, await world.person())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world.blobs.stop()
    await this.world[Symbol.asyncDispose]()
  }

  get storage(): BlobStorage {
    return this.world.storage
  }

  /** As the next process has it. */
  freshSweep(): BlobSweep {
    const { world, enrollments } = this
    return new BlobSweep({
      storage: world.storage,
      blobs: world.blobs,
      call: world.call,
      enrollments,
      departures: world.departures,
      now: () => this.nowMs,
      log: createLog('info', (line) => void world.log.push(line)),
    })
  }

  /** Bytes and their row, as an upload leaves them. */
  async upload(bytes: Uint8Array, person = this.alice): Promise<UploadedFacts> {
    const { key } = await received(this.storage, person.did, bytes)
    const cid = cidToString(cidForRaw(bytes))
    const facts = { cid, mimeType: 'image/png', size: bytes.length }
    const uploaded = { ...facts, tempKey: key, uploadedAtMs: this.nowMs }
    const ask = { kind: 'add-blob', uploaded, quotaBytes: 1e9 } as const
    const { left, isNamed } = await this.world.house.pool.call(person.did, 'test', ask)
    if (left !== undefined && isNamed) this.world.blobs.leave(person.did, cid, left)
    else if (left !== undefined) {
      await this.storage.remove({ kind: 'temporary', did: person.did, key: left })
    }
    return { ...facts, key, bytes }
  }

  /** Writes a post with a picture; nobody moves bytes for it by itself. */
  async name(rkey: string, { cid, mimeType, size }: BlobFacts, person = this.alice): Promise<void> {
    const image = { $type: 'blob', ref: { $link: cid }, mimeType, size }
    const embed = { $type: 'app.bsky.embed.images', images: [{ image, alt: '' }] }
    const op = {
      action: 'put',
      collection,
      rkey: parseRkey(rkey),
      record: post({ embed }),
    } as const
    await person.actor.write(op)
  }

  async unname(rkey: string, person = this.alice): Promise<void> {
    await person.actor.remove(rkey)
  }

  async tidy(person = this.alice): Promise<void> {
    await this.world.blobs.tidy(person.did, 'test')
  }

  bytes(person = this.alice): Promise<KeptBytes> {
    return keptBytes(this.storage, person.did)
  }

  /** What the owner would be given. */
  async read(cid: Cid, person = this.alice): Promise<Uint8Array | undefined> {
    const { did } = person
    const ask = { kind: 'blob', cid, view: 'all' } as const
    const found = await this.world.house.pool.call(did, 'test', ask)
    if ('missing' in found) return undefined
    const { tempKey } = found.row
    if (tempKey === null) return await contentOf(this.storage, { kind: 'permanent', did, cid })
    return await contentOf(this.storage, { kind: 'temporary', did, key: tempKey })
  }

  /** How much the rows say there is. */
  async use(person = this.alice) {
    return await this.world.house.pool.call(person.did, 'test', { kind: 'blob-use' })
  }

  async missing(person = this.alice): Promise<readonly Cid[]> {
    const ask = { kind: 'missing-blobs', after: '', limit: 100, view: 'all', except: [] } as const
    const { missing } = await this.world.house.pool.call(person.did, 'test', ask)
    return missing.map(({ cid }) => cid)
  }

  /** Whether anything of somebody is on disk. */
  hasFolders(person = this.alice): boolean {
    const { dataDir } = this.world.house
    const parents = ['blobs', 'blobs/temp', 'blobs/quarantine']
    return parents.some((parent) => existsSync(join(dataDir, parent, person.did)))
  }

  logged(event: string): readonly string[] {
    return this.world.log.filter((line) => line.includes(`"${event}"`))
  }
}
