import { readdirSync, readFileSync } from 'node:fs'

/**
 * Every file of a folder as text, by file name in sorted order. A macro: import it
 * `with { type: 'macro' }`, and the texts become part of the importing file.
 * @param path of the folder, from the root of the project
 */
export function folder(path: string): Record<string, string> {
  const root = new URL('../../', import.meta.url)
  const place = new URL(`${path.replace(/\/*$/, '')}/`, root)
  const names = readdirSync(place, { withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
    .map((entry) => entry.name)
    .toSorted()
  return Object.fromEntries(names.map((name) => [name, readFileSync(new URL(name, place), 'utf8')]))
}
