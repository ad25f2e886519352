import type { Socket } from 'bun'
import { Child } from './child.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { eventually } from './wait.ts'

/** A Valkey or Redis on loopback that asks for a password. */
export interface Valkey extends AsyncDisposable {
  /** With its password. */
  readonly url: string
}

export const valkeyPassword = 'VALKEY-PASSWORD'

/** As much of one as an allow list needs, speaking its protocol over TCP. */
export class SmallValkey implements Valkey {
  /** Commands that arrived after the greeting, in upper case. */
  readonly commands: string[] = []
  connections = 0
  /** An answer, in the protocol's own text, that takes the place of the right one. */
  instead: (command: readonly string[]) => string | undefined = () => undefined
  readonly #values = new Map<string, { readonly value: Buffer; readonly untilMs: number }>()
  readonly #server: Bun.TCPSocketListener<Connection>

  constructor(port = 0) {
    this.#server = Bun.listen<Connection>({
      hostname: '127.0.0.1',
      port,
      socket: {
        open: (socket) => {
          this.connections += 1
          socket.data = { unread: Buffer.alloc(0), unsent: Buffer.alloc(0), known: false }
        },
        data: (socket, bytes) => this.#read(socket, bytes),
        drain: flush,
      },
    })
  }

  get port(): number {
    return this.#server.port
  }

  get url(): string {
    return `redis://:${valkeyPassword}@127.0.0.1:${this.port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop(true)
  }

  #read(socket: Socket<Connection>, bytes: Buffer): void {
    const { data } = socket
    data.unread = Buffer.concat([data.unread, bytes])
    for (;;) {
      const found = parseCommand(data.unread)
      if (found === undefined) return
      data.unread = data.unread.subarray(found.length)
      const [name = '', ...args] = found.parts.map(String)
      const upper = name.toUpperCase()
      if (!greetings.has(upper)) this.commands.push(upper)
      const instead = this.instead([upper, ...args])
      if (instead === hangUp) return void socket.end()
      const answer =
        instead === undefined
          ? this.#answer(data, upper, found.parts.slice(1))
          : Buffer.from(instead)
      data.unsent = Buffer.concat([data.unsent, answer])
      flush(socket)
    }
  }

  #answer(connection: Connection, name: string, args: readonly Buffer[]): Buffer {
    const [key = '', ...rest] = args.map(String)
    if (name === 'HELLO') {
      connection.known = rest.join(' ') === `AUTH default ${valkeyPassword}`
      return connection.known ? Buffer.from('%1\r\n$6\r\nserver\r\n$5\r\nsmall\r\n') : refused
    }
    if (!connection.known) return refused
    const value = this.#get(key)
    switch (name) {
      case 'PING':
        return simple('PONG')
      case 'SELECT':
        return simple('OK')
      case 'GET':
        return value === undefined ? nothing : bulk(value)
      case 'STRLEN':
        return number(value?.length ?? 0)
      case 'GETRANGE':
        return bulk((value ?? Buffer.alloc(0)).subarray(Number(rest[0]), Number(rest[1]) + 1))
      case 'DEL':
        return number(args.filter((one) => this.#values.delete(String(one))).length)
      case 'SET': {
        const words = rest.slice(1).map((word) => word.toUpperCase())
        if (words.includes('NX') && value !== undefined) return nothing
        const ms = Number(words[words.indexOf('PX') + 1] ?? 0)
        const seconds = Number(words[words.indexOf('EX') + 1] ?? 0)
        const lifeMs = words.includes('PX') ? ms : words.includes('EX') ? seconds * 1000 : Infinity
        this.#values.set(key, { value: Buffer.from(args[1] ?? []), untilMs: Date.now() + lifeMs })
        return simple('OK')
      }
      case 'PTTL': {
        const untilMs = this.#values.get(key)?.untilMs ?? -Infinity
        return number(Math.max(-2, Math.ceil(untilMs - Date.now())))
      }
      default:
        return Buffer.from(`-ERR unknown command ${name}\r\n`)
    }
  }

  #get(key: string): Buffer | undefined {
    const found = this.#values.get(key)
    if (found !== undefined && found.untilMs > Date.now()) return found.value
    this.#values.delete(key)
    return undefined
  }
}

/** Given by `instead`: the connection ends without an answer. */
export const hangUp = 'hang up'

/** The real thing, of whichever name is installed. */
export class InstalledValkey implements Valkey {
  static readonly command = Bun.which('valkey-server') ?? Bun.which('redis-server')
  readonly url: string
  readonly #child: Child

  private constructor(url: string, child: Child) {
    this.url = url
    this.#child = child
  }

  static async start(): Promise<InstalledValkey> {
    const port = await freePort()
    const settings = `--port ${port} --bind 127.0.0.1 --requirepass ${valkeyPassword}`
    const child = new Child({
      command: [this.command ?? 'valkey-server', ...settings.split(' '), '--save', ''],
      cwd: process.env['TMPDIR'] ?? '.',
    })
    const url = `redis://:${valkeyPassword}@127.0.0.1:${port}`
    await eventually('valkey', async () => {
      if (!child.running) throw new Error(`it ended\n${child.output}`)
      return child.output.includes('Ready to accept connections') ? true : undefined
    })
    return new InstalledValkey(url, child)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop()
  }
}

interface Connection {
  unread: Buffer
  unsent: Buffer
  known: boolean
}

const greetings: ReadonlySet<string> = new Set(['HELLO', 'AUTH', 'PING', 'SELECT'])
const refused = Buffer.from('-NOAUTH Authentication required.\r\n')
const nothing = Buffer.from('_\r\n')

function simple(text: string): Buffer {
  return Buffer.from(`+${text}\r\n`)
}

function number(value: number): Buffer {
  return Buffer.from(`:${value}\r\n`)
}

function bulk(value: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`$${value.length}\r\n`), value, Buffer.from('\r\n')])
}

function flush(socket: Socket<Connection>): void {
  const sent = socket.write(socket.data.unsent)
  socket.data.unsent = socket.data.unsent.subarray(Math.max(0, sent))
}

/** The first whole command: an array of bulk strings. */
function parseCommand(bytes: Buffer): { parts: Buffer[]; length: number } | undefined {
  let at = 0
  const line = (): string | undefined => {
    const end = bytes.indexOf('\r\n', at)
    if (end < 0) return undefined
    const text = bytes.toString('latin1', at, end)
    at = end + 2
    return text
  }
  const count = line()
  if (count === undefined) return undefined
  const parts: Buffer[] = []
  for (let index = 0; index < Number(count.slice(1)); index++) {
    const head = line()
    if (head === undefined) return undefined
    const length = Number(head.slice(1))
    if (bytes.length < at + length + 2) return undefined
    parts.push(bytes.subarray(at, at + length))
    at += length + 2
  }
  return { parts, length: at }
}
