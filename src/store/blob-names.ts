import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ignoreAbsent } from '../lib/file-error.ts'
import { OpenFile } from '../lib/open-file.ts'

/** Brings the names in a folder to disk; a folder that is gone has none. */
export async function syncNames(folder: string): Promise<void> {
  await syncContent(join(folder, '.')).catch(ignoreAbsent)
}

export async function syncContent(path: string): Promise<void> {
  const file = await OpenFile.open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** The names in a folder, none if it is not there. */
export async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(ignoreAbsent)) ?? []
}

/** Of a file; undefined for anything else. */
export async function fileFacts(
  path: string,
): Promise<{ readonly bytes: number; readonly writtenAtMs: number } | undefined> {
  const found = await stat(path).catch(ignoreAbsent)
  if (found === undefined || !found.isFile()) return undefined
  return { bytes: found.size, writtenAtMs: found.mtimeMs }
}
