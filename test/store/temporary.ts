import { afterAll } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A folder that goes when the tests of the file that asked for it have run. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'stratos-test-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
