import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { randomBytes } from 'node:crypto'

/**
 * Writes a file so that after a power cut it is either whole or absent: temporary name, fsync,
 * rename, fsync of the folder.
 */
export function writeDurably(path: string, content: string, mode: number): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  const file = openSync(temporary, 'wx', mode)
  try {
    writeSync(file, content)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(temporary, path)
  syncFolder(dirname(path))
}

/** Makes a folder and its missing parents; each new name is on disk when this returns. */
export function makeFolder(path: string): void {
  const first = mkdirSync(path, { recursive: true, mode: 0o700 })
  if (first === undefined) return
  for (let folder = path; folder.length >= first.length; folder = dirname(folder)) {
    syncFolder(dirname(folder))
  }
}

/** Makes a folder, and removes what is in it. */
export function emptyFolder(path: string): void {
  rmSync(path, { recursive: true, force: true })
  makeFolder(path)
}

/** Brings the names inside a folder to disk. */
export function syncFolder(path: string): void {
  syncFile(join(path, '.'))
}

/** Brings to disk what anybody has written into a file. */
export function syncFile(path: string): void {
  const file = openSync(path, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
