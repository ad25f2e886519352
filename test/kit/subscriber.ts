import { decodeFirst, isCidLink } from '@atcute/cbor'
import { within } from './wait.ts'
import { isFields, textOf } from './xrpc.ts'

export const streamNsid = 'zone.stratos.sync.subscribeRecords'

type Fields = Readonly<Record<string, unknown>>

/** A message as somebody else's decoder reads it; `error` is the frame of an error. */
export interface Told {
  readonly type: string
  readonly body: Fields
  /** As it came; empty where it came as text. */
  readonly bytes: Uint8Array
}

interface Op {
  readonly action: string
  readonly path: string
  readonly cid?: string
  readonly record?: Fields
}

interface Wanted {
  readonly params?: Readonly<Record<string, string | number | boolean>>
  readonly authorization?: string
  readonly protocols?: readonly string[]
  readonly headers?: Readonly<Record<string, string>>
}

const waitMs = 15_000

/** A reader of a stream, who keeps all that comes, in order. */
export class Subscriber implements Disposable {
  readonly told: Told[] = []
  /** Code and reason. */
  readonly closed: Promise<readonly [number, string]>
  readonly socket: WebSocket
  readonly #opened: Promise<void>
  #looks: (() => void)[] = []

  constructor(url: string, { params = {}, authorization, protocols, headers }: Wanted) {
    const at = new URL(`/xrpc/${streamNsid}`, url.replace('http', 'ws'))
    for (const [name, value] of Object.entries(params)) at.searchParams.append(name, String(value))
    const all = authorization === undefined ? { ...headers } : { ...headers, authorization }
    const given = protocols === undefined ? {} : { protocols: [...protocols] }
    this.socket = new WebSocket(at, { headers: all, ...given })
    this.socket.binaryType = 'arraybuffer'
    const opened = Promise.withResolvers<void>()
    const closed = Promise.withResolvers<readonly [number, string]>()
    this.#opened = opened.promise
    this.closed = closed.promise
    this.#opened.catch(() => undefined)
    this.socket.addEventListener('open', () => opened.resolve())
    this.socket.addEventListener('message', ({ data }) => this.#take(data))
    this.socket.addEventListener('close', ({ code, reason }) => {
      opened.reject(new Error(`the socket closed with ${code} ${reason}`))
      closed.resolve([code, reason])
      this.#look()
    })
  }

  /** @throws where there is no upgrade */
  static async open(url: string, wanted: Wanted): Promise<Subscriber> {
    const subscriber = new Subscriber(url, wanted)
    await within(waitMs, 'open socket', subscriber.#opened)
    return subscriber
  }

  /** Those of one type. */
  bodies(type: string): readonly Fields[] {
    return this.told.filter((one) => one.type === type).map(({ body }) => body)
  }

  get commits(): readonly Commit[] {
    return this.bodies('#commit').map(commitOf)
  }

  /** What `look` finds, looking again at each message. */
  async until<Found>(what: string, look: () => Found | undefined): Promise<Found> {
    const found = Promise.withResolvers<Found>()
    const check = () => {
      const one = look()
      if (one !== undefined) found.resolve(one)
    }
    this.#looks.push(check)
    check()
    try {
      return await within(waitMs, what, found.promise)
    } catch (cause) {
      const told = this.told.map(
        ({ type, body }) => `${type} ${JSON.stringify(body).slice(0, 200)}`,
      )
      throw new Error(`${what}: was told ${told.join('\n')}`, { cause })
    } finally {
      this.#looks = this.#looks.filter((one) => one !== check)
    }
  }

  /** The first `count` commits. */
  async commitsOf(count: number): Promise<readonly Commit[]> {
    return await this.until(`${count} commits`, () => {
      const { commits } = this
      return commits.length >= count ? commits : undefined
    })
  }

  /** The first that is of a type, and fits. */
  async message(type: string, fits: (body: Fields) => boolean = () => true): Promise<Fields> {
    return await this.until(type, () => this.bodies(type).find(fits))
  }

  /** The close that comes by itself. */
  async end(): Promise<readonly [number, string]> {
    return await within(waitMs, 'end of the stream', this.closed)
  }

  say(message: object | string): void {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message))
  }

  [Symbol.dispose](): void {
    this.socket.close()
  }

  #take(data: unknown): void {
    if (data instanceof ArrayBuffer) this.told.push(decoded(new Uint8Array(data)))
    else this.told.push(parsed(String(data)))
    this.#look()
  }

  #look(): void {
    for (const look of this.#looks) look()
  }
}

export interface Commit {
  readonly seq: number
  readonly did: string
  readonly time: string
  readonly rev: string
  readonly ops: readonly Op[]
}

/** Two values, and nothing behind them. */
function decoded(bytes: Uint8Array): Told {
  const [header, rest] = decodeFirst(bytes)
  const [body, left] = decodeFirst(rest)
  if (left.length > 0) throw new Error(`${left.length} bytes follow the body`)
  if (!isFields(header) || !isFields(body)) throw new Error('a frame is two maps')
  if (header['op'] === -1 && Object.keys(header).length === 1) return { type: 'error', body, bytes }
  if (header['op'] !== 1) throw new Error(`a header says ${JSON.stringify(header)}`)
  return { type: textOf(header, 't'), body, bytes }
}

function parsed(text: string): Told {
  const bytes = new Uint8Array(0)
  const message: unknown = JSON.parse(text)
  if (!isFields(message)) throw new Error('a message is an object')
  const { $type, payload, ...rest } = message
  if ($type === 'error') return { type: 'error', body: rest, bytes }
  if ($type !== 'message' || !isFields(payload)) throw new Error(`what is ${String($type)}?`)
  const { $type: type, ...body } = payload
  return { type: String(type).replace(streamNsid, ''), body, bytes }
}

function commitOf(body: Fields): Commit {
  const { seq, ops } = body
  if (typeof seq !== 'number' || !Array.isArray(ops)) throw new Error('this is no commit')
  const texts = { did: textOf(body, 'did'), time: textOf(body, 'time'), rev: textOf(body, 'rev') }
  return { seq, ...texts, ops: ops.map(opOf) }
}

function opOf(value: unknown): Op {
  if (!isFields(value)) throw new Error('an operation is a map')
  const { cid, record } = value
  const action = textOf(value, 'action')
  const path = textOf(value, 'path')
  const link = cid === undefined ? {} : { cid: linkOf(cid) }
  return { action, path, ...link, ...(isFields(record) ? { record } : {}) }
}

/** A CID that came as a link, not as a text. */
function linkOf(cid: unknown): string {
  if (isCidLink(cid)) return cid.$link
  if (isFields(cid)) return textOf(cid, '$link')
  throw new Error(`${JSON.stringify(cid)} is no link`)
}
