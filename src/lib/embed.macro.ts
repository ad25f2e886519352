import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

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

/**
 * A script or style sheet for browsers with all that it imports, in one piece and made small. A
 * macro as well.
 * @param path of the entry, from the root of the project
 */
export function bundle(path: string): string {
  const entry = fileURLToPath(new URL(`../../${path}`, import.meta.url))
  // Within a macro `Bun.build` would wait for itself.
  const build = Bun.spawnSync([process.execPath, 'build', '--target=browser', '--minify', entry])
  if (build.exitCode !== 0) throw new Error(`${path} cannot be bundled: ${String(build.stderr)}`)
  return String(build.stdout).trim()
}
