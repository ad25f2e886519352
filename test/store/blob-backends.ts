import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DiskBlobs } from '../../src/store/blob-disk.ts'
import type { MovableBlobs } from '../../src/store/blob-storage.ts'

/** A place for blobs that the same suite is run over. */
export interface BlobBackend extends AsyncDisposable {
  readonly name: string
  open(): Promise<MovableBlobs>
}

export function blobBackends(): BlobBackend[] {
  return [onDisk('hard'), onDisk('none')]
}

function onDisk(links: 'hard' | 'none'): BlobBackend {
  const folder = mkdtempSync(join(tmpdir(), 'stratos-test-'))
  return {
    name: links === 'hard' ? 'on disk' : 'on a disk without hard links',
    open: async () => new DiskBlobs(folder, links),
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }),
  }
}
