import { createReadStream } from 'node:fs'
import { posix } from 'node:path'
import { createInterface } from 'node:readline'

/** What a process did, as its kernel saw it. Numbers of lines stand for time. */
export type Op = {
  /** The line at which it was asked for; nothing of it was done before. */
  readonly start: number
  /** The line at which it was done; infinite where the process did not live to see that. */
  readonly end: number
} & Fact

type Fact =
  | { readonly kind: 'make'; readonly path: string; readonly what: 'file' | 'folder' }
  | { readonly kind: 'write'; readonly path: string; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: 'resize'; readonly path: string; readonly size: number }
  /** The same, where the file is shorter. */
  | { readonly kind: 'grow'; readonly path: string; readonly size: number }
  | { readonly kind: 'sync'; readonly path: string }
  | { readonly kind: 'remove'; readonly path: string }
  | { readonly kind: 'rename'; readonly path: string; readonly to: string }
  /** Bytes for somebody outside. */
  | { readonly kind: 'say'; readonly bytes: Buffer }

/** All calls that change files, their names or what of them is on disk, and those that speak. */
const calls = [
  'open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate',
  'fsync,fdatasync,sync_file_range,sync,syncfs,msync,mmap,rename,renameat,renameat2,link,linkat',
  'symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,copy_file_range,sendfile,splice',
  'io_uring_setup,io_submit,sendto,sendmsg',
].join(',')

/** The command that runs another one, as a direct child, and records what it does. */
export function recorded(trace: string, command: readonly string[]): string[] {
  const whole = ['-xx', '-s', '100000000']
  const options = ['-D', '-f', '--seccomp-bpf', '-y', ...whole, '-e', `trace=${calls}`, '-o', trace]
  return ['strace', ...options, ...command]
}

/** Whether processes can be recorded here; if not, why. */
export async function whyNotRecorded(): Promise<string | undefined> {
  if (Bun.which('strace') === null) return 'strace is not installed'
  const command = recorded('/dev/null', ['true'])
  const { exitCode, stderr } = Bun.spawnSync(command, { stderr: 'pipe' })
  return exitCode === 0 ? undefined : `strace does not work here: ${stderr.toString().trim()}`
}

/**
 * The calls on files below `root`, and what was said to others, in the order in which they began. A
 * tracer stops a thread before and after each call, so what one thread did because of another
 * stands after it.
 * @param firstLine number of the first line, where other traces went before
 * @throws for a call that this cannot take apart
 */
export async function readTrace(path: string, root: string, firstLine: number) {
  const ops: Op[] = []
  const positions = new Map<string, number>()
  const unfinished = new Map<string, { readonly start: number; readonly text: string }>()
  const take = (call: string, start: number, end: number) => {
    for (const fact of factsOf(call, { root, positions })) ops.push({ ...fact, start, end })
  }
  let line = firstLine
  for await (const whole of createInterface({ input: createReadStream(path, 'latin1') })) {
    const gap = whole.indexOf(' ')
    const [thread, rest] = [whole.slice(0, gap), whole.slice(gap).trimStart()]
    if (rest.endsWith(unfinishedMark)) {
      unfinished.set(thread, { start: line, text: rest.slice(0, -unfinishedMark.length) })
    } else if (rest.startsWith('<... ')) {
      const begun = unfinished.get(thread)
      unfinished.delete(thread)
      if (begun === undefined) throw new Error(`line ${line + 1} ends what never began`)
      take(begun.text + rest.slice(rest.indexOf('resumed>') + 8), begun.start, line)
    } else if (!rest.startsWith('+++') && !rest.startsWith('---')) {
      take(rest, line, line)
    }
    line += 1
  }
  // What a kill cut off may have been done.
  for (const { start, text } of unfinished.values()) take(`${text}) = ?`, start, Infinity)
  return { ops: ops.toSorted((a, b) => a.start - b.start), lines: line }
}

const unfinishedMark = ' <unfinished ...>'

interface Around {
  readonly root: string
  /** Where the next plain `write` to a file goes. */
  readonly positions: Map<string, number>
}

function factsOf(text: string, around: Around): Fact[] {
  const open = text.indexOf('(')
  const name = text.slice(0, open)
  const close = text.lastIndexOf(') ')
  const args = text.slice(open + 1, close)
  const result = /^ += (\?|-?\d+)/.exec(text.slice(close + 1))?.[1]
  if (result === undefined) throw new Error(`not understood: ${text.slice(0, 200)}`)
  if (result === '-1') return []
  if (name === 'io_uring_setup') throw new Error('io_uring is not followed')
  const said = saidBy(name, args)
  if (said !== undefined) return said
  const paths = pathsOf(name, args)
  const [path, to] = paths.filter((one) => one === around.root || one.startsWith(`${around.root}/`))
  // A file without a name nobody will find again.
  if (path === undefined || args.includes('(deleted)')) return []
  return changeOf({ name, args, result }, { path, to, positions: around.positions })
}

interface Call {
  readonly name: string
  readonly args: string
  /** A question mark where it was not seen to end. */
  readonly result: string
}

function changeOf(
  { name, args, result }: Call,
  { path, to, positions }: { path: string; to: string | undefined; positions: Map<string, number> },
): Fact[] {
  switch (name) {
    case 'open':
    case 'openat':
      return opened(path, args, positions)
    case 'write':
    case 'pwrite64': {
      const all = firstText(args)
      const bytes = result === '?' ? all : all.subarray(0, Number(result))
      const at = name === 'write' ? (positions.get(path) ?? 0) : lastNumber(args)
      if (name === 'write') positions.set(path, at + bytes.length)
      return [{ kind: 'write', path, at, bytes: isZero(bytes) ? zeros(bytes.length) : bytes }]
    }
    case 'ftruncate':
      return [{ kind: 'resize', path, size: lastNumber(args) }]
    case 'fallocate': {
      const [mode, at = 0, length = 0] = args
        .slice(args.indexOf('>'))
        .split(', ')
        .slice(1)
        .map(Number)
      if (mode !== 0) throw new Error(`fallocate(${mode}) of ${path} is not understood`)
      return [{ kind: 'grow', path, size: at + length }]
    }
    case 'fsync':
    case 'fdatasync':
      return result === '?' ? [] : [{ kind: 'sync', path }]
    case 'mkdir':
    case 'mkdirat':
      return [{ kind: 'make', path, what: 'folder' }]
    case 'unlink':
    case 'unlinkat':
    case 'rmdir':
      return [{ kind: 'remove', path }]
    case 'rename':
    case 'renameat':
    case 'renameat2':
      if (to === undefined) throw new Error(`${path} is moved away`)
      return [{ kind: 'rename', path, to }]
    case 'mmap':
      // SQLite's shared memory is made anew when the first one opens a database.
      if (path.endsWith('-shm') || !/PROT_WRITE/.test(args) || !/MAP_SHARED/.test(args)) return []
      throw new Error(`${path} is written through memory`)
    default:
      throw new Error(`${name} of ${path} is not understood`)
  }
}

function opened(path: string, args: string, positions: Map<string, number>): Fact[] {
  positions.delete(path)
  if (/O_APPEND|O_D?SYNC|O_DIRECT\b|O_TMPFILE/.test(args)) {
    throw new Error(`how ${path} is opened is not understood`)
  }
  return [
    ...(args.includes('O_CREAT') ? [{ kind: 'make', path, what: 'file' } as const] : []),
    ...(args.includes('O_TRUNC') ? [{ kind: 'resize', path, size: 0 } as const] : []),
  ]
}

/** Undefined for what is no call on a socket. */
function saidBy(name: string, args: string): Fact[] | undefined {
  if (!['sendto', 'sendmsg', 'write', 'writev'].includes(name)) return undefined
  if (!args.slice(0, args.indexOf('>')).includes(socketMark)) return undefined
  return [{ kind: 'say', bytes: Buffer.concat(textsOf(args)) }]
}

const socketMark = `<${[...Buffer.from('socket:')].map((byte) => `\\x${byte.toString(16)}`).join('')}`

/** Of open files as the kernel knows them, of others as they were named. */
function pathsOf(name: string, args: string): string[] {
  if (name === 'mmap') {
    const [, path] = /, \d+<([^>]*)>, \w+$/.exec(args) ?? []
    return path === undefined ? [] : [decode(path).toString()]
  }
  const [, first] = /^(?:AT_FDCWD|\d+)<([^>]*)>/.exec(args) ?? []
  const base = first === undefined ? '/' : decode(first).toString()
  return byName.has(name)
    ? textsOf(args).map((text) => posix.resolve(base, text.toString()))
    : [base]
}

const byName: ReadonlySet<string> = new Set(
  `open openat openat2 creat truncate rename renameat renameat2 link linkat symlink symlinkat
    unlink unlinkat rmdir mkdir mkdirat`.split(/\s+/),
)

function textsOf(args: string): Buffer[] {
  return [...args.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map(([, hex = '']) => decode(hex))
}

function firstText(args: string): Buffer {
  const begin = args.indexOf('"') + 1
  return decode(args.slice(begin, args.indexOf('"', begin)))
}

function decode(hex: string): Buffer {
  return Buffer.from(hex.replaceAll('\\x', ''), 'hex')
}

function lastNumber(args: string): number {
  return Number(/(\d+)$/.exec(args)?.[1])
}

/** Files are cleared by megabytes: those bytes are held once. */
function isZero(bytes: Buffer): boolean {
  return bytes.equals(zeros(bytes.length))
}

function zeros(length: number): Buffer {
  return length <= manyZeros.length ? manyZeros.subarray(0, length) : Buffer.alloc(length)
}

const manyZeros = Buffer.alloc(4 * 1024 * 1024)
