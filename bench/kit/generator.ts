import { fileURLToPath } from 'node:url'
import { endWithUs } from '../../test/kit/child.ts'
import { linesOf } from './lines.ts'
import type { Plan, Seen } from './plan.ts'
import { cpuSeconds, settle } from './process.ts'

const script = fileURLToPath(new URL('load.ts', import.meta.url))

export interface Driven extends Seen {
  /** What the process under load used, with what it still did when all was answered. */
  readonly cpuSeconds: number
}

/**
 * Runs a load generator with this plan.
 * @param pid the process under load
 * @throws with what it said, when any answer was not as expected
 */
export async function drive(plan: Plan, pid: number): Promise<Driven> {
  const child = Bun.spawn([process.execPath, script], {
    stdin: new Blob([JSON.stringify(plan)]),
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const forget = endWithUs(() => child.kill('SIGKILL'))
  try {
    const failure = new Response(child.stderr).text()
    const cpu = { begin: 0, end: 0 }
    let report = ''
    for await (const line of linesOf(child.stdout)) {
      if (line === 'begin' || line === 'end') cpu[line] = cpuSeconds(pid)
      else report = line
    }
    const code = await child.exited
    if (code !== 0) throw new Error(`the load ended with ${code}: ${await failure}`)
    const seen: Seen = JSON.parse(report)
    // What a load leaves to be done belongs to it, and must not slow the next one down.
    return { ...seen, cpuSeconds: cpu.end - cpu.begin + (await settle(pid)) }
  } finally {
    child.kill('SIGKILL')
    forget()
  }
}
