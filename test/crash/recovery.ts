import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Child } from '../kit/child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { isReady, projectFolder } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'
import type { Dice } from './dice.ts'
import { opsOf, type Recording } from './recording.ts'
import { anySettings, environmentOf } from './reopened.ts'
import { type Op, recorded } from './trace.ts'

/**
 * Starts the service on a copy of a folder and ends it once it is ready. @returns what it did, to
 * files below a root that is gone
 */
export async function recordStart(before: string, recording: Recording, dice: Dice) {
  const folder = await mkdtemp(join(tmpdir(), 'stratos-again-'))
  try {
    const [root, trace] = [join(folder, 'data'), join(folder, 'trace')]
    await cp(before, root, { recursive: true })
    const port = await freePort()
    const child = new Child({
      command: recorded(trace, [process.execPath, 'src/main.ts', 'serve']),
      cwd: projectFolder,
      env: environmentOf(recording, { dataFolder: root, port, ...anySettings(dice) }),
    })
    await eventually('service on what a cut left', () => isReady(`http://localhost:${port}`, child))
    if (dice.oneIn(2)) await child.stop()
    else await child.kill()
    const ops: Op[] = (await opsOf([trace], root)).filter(({ kind }) => kind !== 'say')
    return { root, ops }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
