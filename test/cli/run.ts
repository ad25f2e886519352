import { projectFolder } from '../kit/seeded.ts'

export interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

const endMs = 20_000

/** Runs `stratos admin` as a process of its own, without a terminal. */
export async function runAdmin(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Ended> {
  const child = Bun.spawn([process.execPath, 'src/main.ts', 'admin', ...args], {
    cwd: projectFolder,
    env: { ...inherited(), ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    timeout: endMs,
    killSignal: 'SIGKILL',
  })
  const [code, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { code, out, err }
}

/** Whoever sits at a terminal, by what they see so far; undefined to wait for more. */
export type Typist = (screen: string) => string | undefined

/** The same on a terminal, which shows both streams as one. */
export async function runAtTerminal(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  typist: Typist,
): Promise<{ readonly code: number; readonly screen: string }> {
  let screen = ''
  let typed = false
  const child = Bun.spawn([process.execPath, 'src/main.ts', 'admin', ...args], {
    cwd: projectFolder,
    env: { ...inherited(), ...env },
    timeout: endMs,
    killSignal: 'SIGKILL',
    terminal: {
      cols: 200,
      data: (terminal, bytes) => {
        screen += Buffer.from(bytes).toString()
        const keys = typed ? undefined : typist(screen)
        if (keys === undefined) return
        typed = true
        terminal.write(keys)
      },
    },
  })
  const code = await child.exited
  child.terminal?.close()
  return { code, screen }
}

function inherited(): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env
  return { PATH, HOME }
}
