import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DiskBlobs } from '../../src/store/blob-disk.ts'
import type { MovableBlobs } from '../../src/store/blob-storage.ts'
import { openBlobStorage } from '../../src/store/open-blobs.ts'
import { bucketSettings } from '../kit/blob-home.ts'
import { type Bucket, startS3rver } from '../kit/s3rver.ts'
import { startSwift, swiftLacks } from '../kit/swift.ts'

/** A place for blobs that the same suite is run over. */
export interface BlobBackend {
  readonly name: string
  /** More than a page of a list has. */
  readonly many: number
  /** Some servers cannot list unfinished uploads. */
  readonly listsUploads: boolean
  start(): Promise<RunningBackend>
}

interface RunningBackend extends AsyncDisposable {
  readonly blobs: MovableBlobs
}

export function blobBackends(): BlobBackend[] {
  const lack = swiftLacks()
  if (lack !== undefined) console.log(`${lack}: the tests of blobs on Swift are skipped`)
  return [
    { name: 'on disk', many: 1100, listsUploads: true, start: () => onDisk('hard') },
    { name: 'without hard links', many: 1100, listsUploads: true, start: () => onDisk('none') },
    { name: 'on s3rver', many: 1100, listsUploads: false, start: () => inBucket(startS3rver) },
    ...(lack === undefined
      ? [{ name: 'on Swift', many: 50, listsUploads: true, start: () => inBucket(startSwift) }]
      : []),
  ]
}

async function onDisk(links: 'hard' | 'none'): Promise<RunningBackend> {
  const folder = mkdtempSync(join(tmpdir(), 'stratos-test-'))
  const end = async () => rmSync(folder, { recursive: true, force: true })
  return { blobs: new DiskBlobs(folder, links), [Symbol.asyncDispose]: end }
}

async function inBucket(start: () => Promise<Bucket>): Promise<RunningBackend> {
  const bucket = await start()
  return {
    blobs: await openBlobStorage(bucketSettings(bucket)),
    [Symbol.asyncDispose]: async () => await bucket[Symbol.asyncDispose](),
  }
}
