import { existsSync, readFileSync } from 'node:fs'

const folder = new URL('../../../shared/vectors/', import.meta.url)

/** The AT Protocol interop vectors lie beside the project; without them their tests are skipped. */
export const hasVectors = existsSync(folder)
if (!hasVectors) console.warn(`interop vectors are skipped: there is no ${folder.pathname}`)

/** The lines of a vector file that are neither empty nor a comment. */
export function vectorLines(path: string): string[] {
  return text(path)
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
}

/** Untyped, as it comes: the caller says what the file holds. */
export function vectorJson(path: string): ReturnType<typeof JSON.parse> {
  return JSON.parse(text(path) || '[]')
}

function text(path: string): string {
  return hasVectors ? readFileSync(new URL(path, folder), 'utf8') : ''
}
