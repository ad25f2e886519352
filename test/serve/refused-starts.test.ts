import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openIndex } from '../../src/indexer/database.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { Child } from '../kit/child.ts'
import { PostgresServer } from '../kit/postgres.ts'
import { projectFolder } from '../kit/seeded.ts'
import { eventually } from '../kit/wait.ts'

setDefaultTimeout(60_000)

type Env = Readonly<Record<string, string>>

const password = 's3cr3tp4ssw0rd'
const STRATOS_INDEX_POSTGRES_URL = `postgres://stratos:${password}@127.0.0.1:1/index`
const STRATOS_INDEX_SERVICES = 'did:web:stratos.example.com'
let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'stratos-refused-'))
})
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

async function refused(command: 'index' | 'all', env: Env): Promise<string> {
  const child = new Child({
    command: [process.execPath, 'src/main.ts', command],
    cwd: projectFolder,
    env: { STRATOS_DATA_DIR: folder, STRATOS_PORT: String(await freePort()), ...env },
  })
  expect(await child.exited).toBe(1)
  const output = await eventually('output', () => child.output || undefined)
  // What the operator reads is a message, and no trace of a fault.
  expect(output).not.toContain('    at ')
  return output
}

describe('an indexer is refused', () => {
  const settings: [string, Env, readonly string[]][] = [
    [
      'without an index and services, in one go',
      {},
      ['STRATOS_INDEX_POSTGRES_URL must name the index', 'STRATOS_INDEX_SERVICES must name'],
    ],
    [
      'without an index',
      { STRATOS_INDEX_SERVICES },
      ['STRATOS_INDEX_POSTGRES_URL must name the index'],
    ],
    [
      'without services',
      { STRATOS_INDEX_POSTGRES_URL },
      ['STRATOS_INDEX_SERVICES must name the services to follow'],
    ],
    [
      'with services that are none',
      { STRATOS_INDEX_POSTGRES_URL, STRATOS_INDEX_SERVICES: 'https://stratos.example.com' },
      ['STRATOS_INDEX_SERVICES must hold DIDs'],
    ],
    [
      'with an index at an address of another kind',
      {
        STRATOS_INDEX_SERVICES,
        STRATOS_INDEX_POSTGRES_URL: `mysql://stratos:${password}@127.0.0.1/index`,
      },
      ['STRATOS_INDEX_POSTGRES_URL must be postgres://'],
    ],
    [
      'with an index at an address that is none',
      {
        STRATOS_INDEX_SERVICES,
        STRATOS_INDEX_POSTGRES_URL: `postgres://stratos:${password}%@127.0.0.1/index`,
      },
      ['STRATOS_INDEX_POSTGRES_URL must be postgres://'],
    ],
    [
      'with services in the clear',
      {
        STRATOS_INDEX_POSTGRES_URL,
        STRATOS_INDEX_SERVICES: `${STRATOS_INDEX_SERVICES}=http://stratos.example.com`,
      },
      ['STRATOS_INDEX_SERVICES names http://stratos.example.com, which must be https'],
    ],
    [
      'with a firehose that is no WebSocket',
      {
        STRATOS_INDEX_POSTGRES_URL,
        STRATOS_INDEX_SERVICES,
        STRATOS_INDEX_FIREHOSES: `https://me:${password}@relay.example.com`,
      },
      ['STRATOS_INDEX_FIREHOSES must hold URLs that start with wss://'],
    ],
    [
      'with a firehose in the clear',
      {
        STRATOS_INDEX_POSTGRES_URL,
        STRATOS_INDEX_SERVICES,
        STRATOS_INDEX_FIREHOSES: `ws://me:${password}@relay.example.com`,
      },
      ['STRATOS_INDEX_FIREHOSES: '],
    ],
  ]
  test.each(settings)('%s', async (_, env, problems) => {
    const output = await refused('index', env)
    const lines = output.split('\n').filter((line) => line.startsWith('STRATOS_'))
    expect(lines).toHaveLength(problems.length)
    for (const [at, problem] of problems.entries()) expect(lines[at]).toStartWith(problem)
    expect(output).not.toContain(password)
  })

  test('over an index of a newer program, which it leaves as it is', async () => {
    await using server = await PostgresServer.start()
    const url = await server.database()
    const sql = await openIndex({ url })
    await sql`insert into stratos_migration (version, name, "appliedAt")
      values (1000, '1000-later.sql', now())`
    const env = { STRATOS_INDEX_SERVICES, STRATOS_INDEX_POSTGRES_URL: url }
    const output = await refused('index', env)
    expect(output).toContain('the index is at version 1000')
    expect(output).toContain('start the newer program that wrote it')
    expect(output).not.toContain(new URL(url).password)
    expect(await sql`select version from stratos_migration where version = 1000`).toHaveLength(1)
    await sql.end()
  })
})

describe('service, indexer and AppView in one process are refused', () => {
  test('with a firehose in the clear, before there is any data', async () => {
    const data = join(folder, 'untouched')
    const output = await refused('all', {
      STRATOS_DATA_DIR: data,
      STRATOS_INDEX_FIREHOSES: `ws://me:${password}@relay.example.com`,
    })
    expect(output).toContain('STRATOS_INDEX_FIREHOSES: ')
    expect(output).not.toContain(password)
    expect(existsSync(data)).toBe(false)
  })

  test('where their own service is said to be elsewhere, before there is any data', async () => {
    const data = join(folder, 'untouched')
    const output = await refused('all', {
      STRATOS_DATA_DIR: data,
      STRATOS_SERVICE_DID: STRATOS_INDEX_SERVICES,
      STRATOS_INDEX_SERVICES: `${STRATOS_INDEX_SERVICES}=https://elsewhere.example.com`,
    })
    expect(output).toContain('STRATOS_INDEX_SERVICES names did:web:stratos.example.com at https://')
    expect(output).toContain('leave it out')
    expect(existsSync(data)).toBe(false)
  })

  test('over an index of a newer program, and what runs already ends in order', async () => {
    await using server = await PostgresServer.start()
    const url = await server.database()
    const sql = await openIndex({ url })
    await sql`insert into stratos_migration (version, name, "appliedAt")
      values (1000, '1000-later.sql', now())`
    const output = await refused('all', { STRATOS_INDEX_POSTGRES_URL: url })
    expect(output).toContain('the index is at version 1000')
    expect(output).toContain('"stopped"')
    expect(output).not.toContain(new URL(url).password)
    await sql.end()
  })
})
