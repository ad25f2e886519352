import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { projectFolder } from '../kit/seeded.ts'
import { eventually, within } from '../kit/wait.ts'

export interface Ended {
  readonly code: number
  readonly output: string
  /** What it left in its folder for temporary files. */
  readonly leftovers: readonly string[]
}

const benchMs = 60_000

/**
 * Runs a bench to its end.
 * @param line its path below `bench/` and what follows it, separated by spaces
 * @param interruptAt is interrupted, as by Ctrl-C, once there is a file of that name
 */
export async function runBench(line: string, interruptAt?: string): Promise<Ended> {
  const [path = '', ...rest] = line.split(' ')
  const folder = await mkdtemp(join(tmpdir(), 'stratos-benched-'))
  const child = Bun.spawn([process.execPath, join('bench', path), ...rest], {
    cwd: projectFolder,
    env: { ...process.env, TMPDIR: folder },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const outputs = Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  try {
    if (interruptAt !== undefined) {
      await eventually(interruptAt, async () => {
        const names = await readdir(folder, { recursive: true })
        return names.some((name) => name.endsWith(interruptAt)) ? true : undefined
      })
      child.kill('SIGINT')
    }
    const code = await within(benchMs, `end of ${path}`, child.exited)
    return { code, output: (await outputs).join(''), leftovers: await readdir(folder) }
  } finally {
    child.kill('SIGKILL')
    await rm(folder, { recursive: true, force: true })
  }
}
