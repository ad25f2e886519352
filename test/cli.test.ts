import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import packageJson from '../package.json' with { type: 'json' }
import { describeVariables } from '../src/config.ts'
import { Child } from './kit/child.ts'
import { freePort } from '../src/lib/free-port.ts'
import { postCollection, privatePost } from './kit/post.ts'
import { projectFolder, SeededStratos } from './kit/seeded.ts'
import { sendRaw } from './kit/raw.ts'
import { eventually } from './kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf } from './kit/xrpc.ts'

setDefaultTimeout(60_000)

const endMs = 20_000
const scratch = mkdtempSync(join(tmpdir(), 'stratos-cli-'))
let stratos: SeededStratos

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'], carol: ['b'] } })
})
afterAll(async () => {
  await stratos?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

interface Ended {
  readonly code: number
  readonly lines: readonly string[]
}

async function run(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const { PATH = '', HOME = '' } = process.env
  const child = Bun.spawn([process.execPath, 'src/main.ts', ...args], {
    cwd: projectFolder,
    env: { PATH, HOME, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    timeout: endMs,
    killSignal: 'SIGKILL',
  })
  const [code, ...texts] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { code, lines: texts.join('').trimEnd().split('\n') }
}

/** A start that fails says why in lines for people, and shows no place in the source. */
function expectFailure({ code, lines }: Ended): string[] {
  expect(code).toBe(1)
  const said = lines.filter((line) => !line.startsWith('{"time":'))
  expect(said.join('\n')).not.toMatch(/\bat .*:\d+:\d+/)
  return said
}

describe('the program ends with 1 and says why', () => {
  test('at a command that there is not', async () => {
    const commands = ['start', '']
    const ends = await Promise.all(commands.map((command) => run([command])))
    expect(ends.flatMap(expectFailure)).toEqual(
      commands.map(
        (command) => `there is no command ${JSON.stringify(command)}; "stratos help" lists them`,
      ),
    )
  })

  test('at settings that are bad, each on a line of its own', async () => {
    const env = { STRATOS_PORT: 'http', STRATOS_DEV_MODE: 'yes', STRATOS_SHARDS: '-1' }
    const said = expectFailure(await run(['serve'], { ...env, STRATOS_DATA_DIR: scratch }))
    expect(said.map((line) => line.split(' ')[0])).toEqual(Object.keys(env))
    expect(readdirSync(scratch)).toEqual([])
  })

  test('at development mode with a public host or URL', async () => {
    const url = { STRATOS_PUBLIC_URL: 'https://stratos.example.com' }
    const settings = { STRATOS_DEV_MODE: 'true', STRATOS_DATA_DIR: scratch }
    const ends = await Promise.all([
      run(['serve'], { ...settings, ...url, STRATOS_HOST: '0.0.0.0' }),
      run(['serve'], { ...settings, ...url }),
    ])
    for (const end of ends) {
      const said = expectFailure(end)
      expect(said).toHaveLength(1)
      expect(said[0]).toStartWith('STRATOS_DEV_MODE works on loopback only')
    }
    expect(readdirSync(scratch)).toEqual([])
  })

  test('at a data folder that another process uses, which goes on undisturbed', async () => {
    const env = { ...stratos.environment(), STRATOS_PORT: String(await freePort()) }
    expect(expectFailure(await run(['serve'], env))).toEqual([
      'another process uses the data folder; stop it, or set STRATOS_DATA_DIR to another folder',
    ])
    expect(await post('alice')).toMatchObject({ status: 200 })
  })

  test('at a port that is taken, whose connections all stay where they were', async () => {
    const env = { STRATOS_PORT: String(stratos.port), STRATOS_DATA_DIR: join(scratch, 'port') }
    const said = expectFailure(await run(['serve'], env))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('STRATOS_PORT')
    expect(await post('alice')).toMatchObject({ status: 200 })
  })

  test('at an address that this machine lacks', async () => {
    const url = { STRATOS_PUBLIC_URL: 'https://stratos.example.com' }
    const hosts = ['192.0.2.1', 'no host at all']
    const ends = await Promise.all(
      hosts.map((host, index) => {
        const env = { ...url, STRATOS_HOST: host, STRATOS_DATA_DIR: join(scratch, `host${index}`) }
        return run(['serve'], env)
      }),
    )
    for (const end of ends) {
      const said = expectFailure(end)
      expect(said).toHaveLength(1)
      expect(said[0]).toContain('STRATOS_HOST')
    }
  })

  test('at a data folder that is none', async () => {
    const file = join(scratch, 'file')
    writeFileSync(file, '')
    const said = expectFailure(await run(['serve'], { STRATOS_DATA_DIR: join(file, 'below') }))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('STRATOS_DATA_DIR')
  })

  test('at data that a newer program wrote, and leaves them as they are', async () => {
    expect(await stratos.terminate()).toBe(0)
    const path = join(stratos.dataFolder, 'service.sqlite')
    const present = setVersion(path, 1_000_000)
    const said = expectFailure(await run(['serve'], stratos.environment()))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('start the newer program')
    expect(setVersion(path, present)).toBe(1_000_000)
    await stratos.run()
    expect(await post('alice')).toMatchObject({ status: 200 })
  })

  test('without the key that enrolled people rely on, and makes no other', async () => {
    expect(await stratos.terminate()).toBe(0)
    const path = join(stratos.dataFolder, 'signing_key')
    renameSync(path, `${path}.aside`)
    const said = expectFailure(await run(['serve'], stratos.environment()))
    expect(said).toHaveLength(1)
    expect(said[0]).toContain('restore it from a backup')
    expect(existsSync(path)).toBeFalse()
    renameSync(`${path}.aside`, path)
    await stratos.run()
    expect(await post('alice')).toMatchObject({ status: 200 })
  })
})

describe('the program tells', () => {
  test('how to use it, when asked or not told what to do', async () => {
    const ends = await Promise.all([['help'], []].map((args) => run(args)))
    for (const { code, lines } of ends) {
      expect(code).toBe(0)
      const text = lines.join('\n')
      for (const { name, fallback, text: meaning } of describeVariables()) {
        expect(text).toContain(`\n  ${name}\n      ${meaning} Default: ${fallback}.`)
      }
      for (const command of ['serve', 'admin', 'help', 'version']) {
        expect(text).toContain(`\n  stratos ${command} `)
      }
    }
  })

  test('its version alone', async () => {
    expect(await run(['version'])).toEqual({ code: 0, lines: [packageJson.version] })
  })
})

describe('after the process ended and began again', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s under load lost no write that was acknowledged, and ended with 0',
    async (signal) => {
      let written = 0
      const load = Array.from({ length: 8 }, (_, index) =>
        writeUntilStopped(index % 2 === 0, () => (written += 1)),
      )
      await eventually('load', () => written > 40 || undefined, { withinMs: endMs, everyMs: 5 })
      const code = await stratos.terminate(signal)
      expect(code).toBe(0)
      await eventually('last line of the log', () => stopLine(stratos.log))
      expect(stratos.log).toContain(`"signal":"${signal}"`)
      const outcomes = (await Promise.all(load)).flat()
      const acknowledged = outcomes.flatMap(({ status, body }) =>
        status === 200 ? [textOf(body, 'uri')] : [],
      )
      expect(acknowledged.length).toBeGreaterThan(20)
      for (const { status } of outcomes) expect(status).toBeOneOf([200, 503])

      await stratos.run()
      const kept = new Set([...(await urisOf('alice')), ...(await urisOf('bob'))])
      expect(acknowledged.filter((uri) => !kept.has(uri))).toEqual([])
      expect(await post('alice')).toMatchObject({ status: 200 })
    },
  )

  test('the first start makes a key and its folder, for nobody else to read', async () => {
    const folder = join(scratch, 'first', 'data')
    const port = await freePort()
    const env = { STRATOS_PORT: String(port), STRATOS_DATA_DIR: folder }
    const command = [process.execPath, 'src/main.ts', 'serve']
    const child = new Child({ command, cwd: projectFolder, env })
    try {
      const started = () => child.output.includes('"event":"started"') || undefined
      await eventually('start', started, { withinMs: endMs, everyMs: 10 })
      expect(modeOf(join(folder, 'signing_key'))).toBe(0o600)
      expect(modeOf(folder)).toBe(0o700)
      const names = readdirSync(folder)
      expect(names).toContain('service.sqlite')
      for (const name of names) expect(modeOf(join(folder, name)) & 0o077).toBe(0)
      // With nothing but a port and a folder set it says that it is for development only.
      expect(child.output).toContain('development identity')
      const health: unknown = await (await fetch(`http://localhost:${port}/health`)).json()
      expect(health).toMatchObject({ developmentMode: false })
      expect(await child.stop()).toBe(0)
    } finally {
      await child.kill()
    }
  })

  test('what was under way at the signal is finished and answered, and nothing new begins', async () => {
    const { did, bearer } = stratos.person('alice')
    const record = privatePost('under way', [stratos.boundary('a')])
    const body = JSON.stringify({ repo: did, collection: postCollection, record })
    const head =
      'POST /xrpc/zone.stratos.repo.createRecord HTTP/1.1\r\nHost: localhost\r\n' +
      `Authorization: ${bearer}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${body.length}\r\nExpect: 100-continue\r\n\r\n`
    let ended: Promise<number> | undefined
    const answer = await sendRaw(stratos.port, head, async (soFar) => {
      await eventually('start of the call', () => soFar().includes(' 100 ') || undefined)
      ended = stratos.terminate()
      await eventually('closed door', () => isRefused(stratos.url), { everyMs: 10 })
      return body
    })
    expect(answer).toContain('HTTP/1.1 200 ')
    expect(await ended).toBe(0)
    await stratos.run()
    expect(answer).toContain((await urisOf('alice'))[0] ?? 'no record')
  })

  test('it works on the same data, by the same keys, with any number of shards', async () => {
    const before = await identity()
    const keys = keyFiles()
    // One of the service and one of each person, for nobody else on the machine to read.
    expect(keys.map(({ mode }) => mode)).toEqual([0o600, 0o600, 0o600, 0o600])
    const written: string[] = await urisOf('alice')
    for (const shards of ['0', '2']) {
      expect(await stratos.terminate()).toBe(0)
      await stratos.run({ STRATOS_SHARDS: shards })
      expect(await identity()).toEqual(before)
      expect(keyFiles()).toEqual(keys)
      expect((await urisOf('alice')).toSorted()).toEqual(written.toSorted())
      for (const name of ['alice', 'bob']) expect(await post(name)).toMatchObject({ status: 200 })
      const answer = await post('alice')
      written.push(...(await urisOf('alice')).filter((uri) => !written.includes(uri)))
      expect(written).toContain(textOf(answer.body, 'uri'))
    }
  })
})

function post(name: string, text = 'a post'): Promise<Answer> {
  const { did } = stratos.person(name)
  const record = privatePost(text, [stratos.boundary('a')])
  const input = { repo: did, collection: postCollection, record }
  return stratos.callAs(name, 'zone.stratos.repo.createRecord', { input })
}

async function isRefused(url: string): Promise<true | undefined> {
  try {
    await (await fetch(`${url}/ready`)).body?.cancel()
    return undefined
  } catch {
    return true
  }
}

/** The line with which a process in good order ends. */
function stopLine(log: string): string | undefined {
  return log
    .trimEnd()
    .split('\n')
    .slice(-1)
    .find((line) => line.includes('"event":"stopped"'))
}

/** Posts one after the other until nobody answers any more. */
async function writeUntilStopped(asAlice: boolean, wrote: () => void): Promise<Answer[]> {
  const answers: Answer[] = []
  for (;;) {
    try {
      answers.push(await post(asAlice ? 'alice' : 'bob'))
      wrote()
    } catch (error) {
      // The connection is refused, or cut before an answer: nothing was acknowledged.
      if (error instanceof Error && 'code' in error) return answers
      throw error
    }
  }
}

async function urisOf(name: string): Promise<string[]> {
  const uris: string[] = []
  const { did } = stratos.person(name)
  for (let cursor: unknown; ;) {
    const params = { repo: did, collection: postCollection, limit: 100 }
    const more = typeof cursor === 'string' ? { cursor } : {}
    const nsid = 'zone.stratos.repo.listRecords'
    const { body, status } = await stratos.callAs(name, nsid, { params: { ...params, ...more } })
    expect(status).toBe(200)
    uris.push(...listOf(body, 'records').map((record) => textOf(record, 'uri')))
    cursor = body['cursor']
    if (cursor === undefined) return uris
  }
}

/** The DID, and the key that signs its attestations. */
async function identity(): Promise<string[]> {
  const params = { did: stratos.person('alice').did }
  const { body } = await stratos.callAs('alice', 'zone.stratos.enrollment.status', { params })
  const document: unknown = await (await fetch(`${stratos.url}/.well-known/did.json`)).json()
  return [
    JSON.stringify(document),
    textOf(body, 'signingKey'),
    textOf(fieldsOf(body, 'attestation'), 'signingKey'),
  ]
}

function keyFiles() {
  return readdirSync(stratos.dataFolder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('signing_key'))
    .map((name) => join(stratos.dataFolder, name))
    .map((path) => ({ path, mode: modeOf(path), content: readFileSync(path, 'utf8') }))
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o777
}

/** @returns the version before */
function setVersion(path: string, version: number): number {
  using database = new Database(path)
  const row = database.query<{ user_version: number }, []>('pragma user_version').get()
  database.run(`pragma user_version = ${version}`)
  return row?.user_version ?? 0
}
