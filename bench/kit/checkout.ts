import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endWithUs } from '../../test/kit/child.ts'
import { ownRoot } from './service.ts'

const commandMs = 5 * 60_000

/** A commit of this repository in a folder of its own, ready to run. It does not outlive us. */
export class Checkout implements AsyncDisposable {
  /** In full. */
  readonly commit: string
  readonly root: string
  readonly #forget: () => void

  private constructor(commit: string, root: string) {
    this.commit = commit
    this.root = root
    this.#forget = endWithUs(() => rmSync(root, { recursive: true, force: true }))
  }

  /** @param name as git knows it: a hash, a tag, a branch */
  static async of(name: string): Promise<Checkout> {
    const commit = await run(ownRoot, ['git', 'rev-parse', '--verify', `${name}^{commit}`])
    const root = await mkdtemp(join(tmpdir(), 'stratos-checkout-'))
    const checkout = new Checkout(commit, root)
    try {
      // It borrows our objects: also those that no branch holds any more can be had.
      await run(root, ['git', 'clone', '--quiet', '--shared', '--no-checkout', ownRoot, '.'])
      await run(root, ['git', 'checkout', '--quiet', '--detach', commit])
      await run(root, [process.execPath, 'install', '--frozen-lockfile', '--ignore-scripts'])
      return checkout
    } catch (error) {
      await checkout[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.root, { recursive: true, force: true })
    this.#forget()
  }
}

/** @returns what it wrote, without the end of the line */
async function run(cwd: string, command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], {
    cwd,
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    timeout: commandMs,
  })
  const forget = endWithUs(() => child.kill('SIGKILL'))
  const [output, failure] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  const code = await child.exited
  forget()
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${failure}`)
  return output.trim()
}
