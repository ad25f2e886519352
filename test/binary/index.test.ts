import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/lib/free-port.ts'
import { Child } from '../kit/child.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { eventually } from '../kit/wait.ts'
import { WholeStratos } from '../serve/whole.ts'

setDefaultTimeout(60_000)

const binary = fileURLToPath(new URL('../../dist/stratos', import.meta.url))
const isBuilt = existsSync(binary)
if (!isBuilt) console.log('dist/stratos is not built: its tests are skipped')

describe.skipIf(!isBuilt)('the built binary as service, indexer and AppView', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'stratos-empty-'))
  })
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  test('says what to set where it has no PostgreSQL with it, before it listens', async () => {
    const data = join(folder, 'data')
    const env = { STRATOS_DATA_DIR: data, STRATOS_PORT: String(await freePort()) }
    const child = new Child({ command: [binary, 'all'], cwd: folder, env })
    expect(await child.exited).toBe(1)
    const output = await eventually('message', () => child.output || undefined)
    expect(output).toContain('set STRATOS_INDEX_POSTGRES_URL to a PostgreSQL that runs already')
    expect(output.trimEnd().split('\n')).toHaveLength(1)
    expect(await readdir(folder)).toEqual([])
  })

  test('shows posts over a PostgreSQL that is there', async () => {
    await using server = await PostgresServer.start()
    const env = { STRATOS_INDEX_POSTGRES_URL: await server.database() }
    await using whole = await WholeStratos.start(env, [binary, 'all'])
    await whole.write('ann', 'by the binary')
    await whole.shows('ben', ['by the binary'])
    await whole.shows('zoe', [])
    expect(await whole.stratos.terminate()).toBe(0)
  })
})
