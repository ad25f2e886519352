import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { endWithUs } from '../../test/kit/child.ts'
import { installPackages, nodeFromNpm } from '../../test/network/install.ts'
import { print } from '../kit/report.ts'

export const peersFolder = fileURLToPath(new URL('.', import.meta.url))
const sqliteFolder = join(peersFolder, 'node_modules/better-sqlite3')
const compiled = join(sqliteFolder, 'build/Release/better_sqlite3.node')
const gyp = join(peersFolder, 'node_modules/node-gyp/bin/node-gyp.js')
const compileMs = 15 * 60_000

/** Whether all is there that `installPeers` would see to. */
export async function hasPeers(): Promise<boolean> {
  return await Bun.file(compiled).exists()
}

/**
 * Sees to the packages of the official PDS. Its SQLite is compiled, for the registry has it as a
 * source only, and a stand-in would be another server: as compiled it syncs in mode NORMAL, which
 * other builds of SQLite do not.
 * @returns the Node to run it by
 */
export async function installPeers(): Promise<string> {
  await installPackages(peersFolder, ['package.json', 'bun.lock'])
  const node = await nodeFromNpm(peersFolder)
  if (node === undefined) {
    throw new Error(`there is no package of Node for ${process.platform} ${process.arch}`)
  }
  if (await hasPeers()) return node
  print('compiling better-sqlite3 for the PDS, once: some minutes')
  const headers = join(node, '../..')
  const build = Bun.spawn([node, gyp, 'rebuild', '--release', `--nodedir=${headers}`], {
    cwd: sqliteFolder,
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    timeout: compileMs,
  })
  const forget = endWithUs(() => build.kill('SIGKILL'))
  const [, failure] = await Promise.all([
    new Response(build.stdout).text(),
    new Response(build.stderr).text(),
  ])
  const code = await build.exited
  forget()
  if (code === 0) return node
  throw new Error(`better-sqlite3 needs make, a C++ compiler and Python here:\n${failure}`)
}
