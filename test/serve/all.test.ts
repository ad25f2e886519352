import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { Child } from '../kit/child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { expectRefusal } from '../kit/refusal.ts'
import { projectFolder } from '../kit/seeded.ts'
import { eventually, within } from '../kit/wait.ts'
import { gone } from '../indexer/index-folder.ts'
import { WholeStratos } from './whole.ts'

setDefaultTimeout(120_000)

/** Some seconds, on a machine that does much else. */
const endMsMax = 15_000

/** A signal ends one of its threads. */
const mortal: readonly string[] = [
  process.execPath,
  '--preload',
  join(projectFolder, 'test/bulk/mortal-threads.ts'),
  'src/main.ts',
  'all',
]

test('a second process on the same data folder says why it ends, and harms nothing', async () => {
  await using whole = await WholeStratos.start()
  const { stratos } = whole
  await whole.write('ann', 'before')
  await whole.shows('ben', ['before'])
  const pid = await whole.nextPostgres()
  const second = new Child({
    command: [process.execPath, 'src/main.ts', 'all'],
    cwd: projectFolder,
    env: { ...stratos.environment(), STRATOS_PORT: String(await freePort()) },
  })
  expect(await second.exited).toBe(1)
  await eventually('message', () => second.output.includes('data folder; stop it') || undefined)
  expect(second.output).not.toContain('    at ')
  await whole.write('ann', 'after')
  await whole.shows('ben', ['after', 'before'])
  expect(whole.postgresPid).toBe(pid)
})

test('a service with its index and a PostgreSQL of its own outlives what is killed', async () => {
  await using whole = await WholeStratos.start()
  const { stratos } = whole
  await whole.write('ann', 'first')
  await whole.shows('ben', ['first'])
  await whole.shows('zoe', [])

  const first = await whole.nextPostgres()
  process.kill(first, 'SIGKILL')
  await gone(first)
  expectRefusal(await whole.timeline('ben'), [503, 'IndexUnavailable'])
  await whole.write('ann', 'without index')
  expect((await fetch(`${stratos.url}/ready`)).status).toBe(200)
  await whole.shows('ben', ['without index', 'first'])
  const second = await whole.nextPostgres(first)
  expect(stratos.log).toContain('"index.postgres.ended"')

  await stratos.kill()
  expect(whole.postgresPid).toBe(second)
  await stratos.run()
  await whole.write('ann', 'after all')
  await whole.shows('ben', ['after all', 'without index', 'first'])
  await gone(second)
  const third = await whole.nextPostgres()

  expect(await within(endMsMax, 'end', stratos.terminate())).toBe(0)
  await gone(third)
  await stratos.run()
  await whole.shows('ben', ['after all', 'without index', 'first'])
})

test('a process that is told to end while its PostgreSQL starts leaves none', async () => {
  await using whole = await WholeStratos.start()
  const { stratos } = whole
  expect(await whole.index()).toMatchObject({ indexing: { role: 'starting' } })
  expect(await stratos.terminate()).toBe(0)
  expect(whole.postgresPid).toBeUndefined()
  expect(stratos.log).toContain('"stopped"')
  await stratos.run()
  await whole.write('ann', 'first')
  await whole.shows('ben', ['first'])
})

describe('no PostgreSQL is left in its recovery', () => {
  test('by a process that is told to end, and has it end in order', async () => {
    await using whole = await indexed()
    const { stratos } = whole
    const { pid, release } = await whole.runRecovering()
    expect(await within(endMsMax, 'end', stratos.terminate())).toBe(0)
    expect(whole.postgresPid).toBeUndefined()
    await gone(pid)
    expect(stratos.log).toContain('"stopped"')
    expect(stratos.log).toContain('received fast shutdown request')
    expect(stratos.log).not.toContain('index.unreachable')
    release()
    await stratos.run()
    await whole.shows('ben', ['first'])
  })

  test('by a process that is told twice to end', async () => {
    await using whole = await indexed()
    const { stratos } = whole
    const { pid, release } = await whole.runRecovering()
    // It hears nothing until the process beside it is no more.
    process.kill(pid, 'SIGSTOP')
    const ended = stratos.terminate()
    await eventually('stop', () => stratos.log.includes('"stopping"') || undefined)
    expect([await stratos.terminate(), await ended]).toEqual([1, 1])
    process.kill(pid, 'SIGCONT')
    await gone(pid)
    release()
    await whole.stratos.run()
    await whole.shows('ben', ['first'])
  })

  test('by a process one of whose threads has died', async () => {
    await using whole = await indexed(mortal)
    const { pid } = await whole.runRecovering()
    const ended = whole.stratos.terminate('SIGUSR2')
    expect(await within(endMsMax, 'end', ended)).toBe(70)
    await gone(pid)
  })

  /** One that has come to its end in order. */
  async function indexed(command?: readonly string[]): Promise<WholeStratos> {
    const whole = await WholeStratos.start({}, command)
    await whole.write('ann', 'first')
    await whole.shows('ben', ['first'])
    await whole.stratos.terminate()
    return whole
  }
})

describe('no PostgreSQL is left', () => {
  test('by a process that is told twice to end', async () => {
    await using whole = await WholeStratos.start()
    await whole.write('ann', 'first')
    await whole.shows('ben', ['first'])
    const pid = await whole.nextPostgres()
    const ended = whole.stratos.terminate()
    const again = whole.stratos.terminate()
    expect(await ended).toBe(await again)
    await gone(pid)
  })

  test('by a process one of whose threads has died', async () => {
    await using whole = await WholeStratos.start({}, mortal)
    await whole.write('ann', 'first')
    await whole.shows('ben', ['first'])
    const pid = await whole.nextPostgres()
    const ended = whole.stratos.terminate('SIGUSR2')
    expect(await within(endMsMax, 'end', ended)).toBe(70)
    await gone(pid)
    await whole.stratos.run()
    await whole.shows('ben', ['first'])
  })
})

test('over a PostgreSQL of the operator none is started, and no password is told', async () => {
  await using server = await PostgresServer.start()
  const url = await server.database()
  await using whole = await WholeStratos.start({ STRATOS_INDEX_POSTGRES_URL: url })
  const { stratos } = whole
  await whole.write('ann', 'first')
  await whole.shows('ben', ['first'])
  expect(whole.postgresPid).toBeUndefined()
  await server.kill()
  expectRefusal(await whole.timeline('ben'), [503, 'IndexUnavailable'])
  await whole.write('ann', 'meanwhile')
  await server.restart()
  await whole.shows('ben', ['meanwhile', 'first'])
  expect(await within(endMsMax, 'end', stratos.terminate())).toBe(0)
  expect(stratos.log).not.toContain(new URL(url).password)
})
