import { sendRaw } from '../kit/raw.ts'
import { type Answer, type Call, isFields, requestMs, verbOf } from '../kit/xrpc.ts'
import { bindsKey, type Door } from './doors.ts'
import { proofFor } from './proof.ts'
import type { Actor, World } from './world.ts'

/** A credential as a request carries it. */
export interface Sent {
  /** The header, or several headers of that name. */
  readonly authorization?: string | readonly string[]
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  readonly query?: Readonly<Record<string, string | readonly string[]>>
}

export interface Got extends Answer {
  /** The body, whatever it is. */
  readonly text: string
}

/** Calls a method about `subject`, with this credential and nothing else of the caller's. */
export async function send(
  world: World,
  door: Door,
  { subject, sent }: { readonly subject: Actor; readonly sent: Sent },
): Promise<Got> {
  return await sendCall(world, door, { call: door.call(subject, world), sent })
}

export async function sendCall(
  world: World,
  door: Door,
  { call, sent }: { readonly call: Call; readonly sent: Sent },
): Promise<Got> {
  const url = new URL(door.path, world.stratos.url)
  for (const [name, value] of entriesOf({ ...paramsOf(call), ...sent.query })) {
    url.searchParams.append(name, value)
  }
  const lines = await linesOf(world, door, { call, sent })
  const body = textOf(call)
  const request = { method: verbOf(call), body }
  const got = await patiently(() =>
    isPlain(lines)
      ? fetched(url, { ...request, headers: lines })
      : written(world.stratos.port, { ...request, url, lines }),
  )
  world.nonce = got.headers.get('dpop-nonce') ?? world.nonce
  return got
}

/**
 * Asks again where the service bids to: of callers who are new to it, and here all of them are, it
 * takes so many in a second and no more.
 */
export async function patiently<Given extends Answer>(ask: () => Promise<Given>): Promise<Given> {
  for (let tries = 1; ; tries++) {
    const answer = await ask()
    if (answer.body['error'] !== 'Overloaded' || tries === triesMax) return answer
    await Bun.sleep(Number(answer.headers.get('retry-after')) * 1000)
  }
}

const triesMax = 20

function textOf({ body, input }: Call): string | undefined {
  if (input !== undefined) return JSON.stringify(input)
  if (body === undefined || typeof body === 'string') return body
  throw new Error('only texts are sent here')
}

type Line = readonly [name: string, value: string]

/** The value of the header as a server reads it that is sent several. */
export function authorizationOf({ authorization }: Sent): string | undefined {
  return typeof authorization === 'object' ? authorization.join(', ') : authorization
}

function paramsOf({ params = {} }: Call): Record<string, string> {
  return Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)]))
}

function entriesOf(fields: Readonly<Record<string, string | readonly string[]>>): Line[] {
  return Object.entries(fields).flatMap(([name, value]) =>
    typeof value === 'string' ? [[name, value] as const] : value.map((one) => [name, one] as const),
  )
}

async function linesOf(
  world: World,
  door: Door,
  { call, sent }: { readonly call: Call; readonly sent: Sent },
): Promise<Line[]> {
  const { authorization = [] } = sent
  const headers: Record<string, string | readonly string[]> = {
    authorization,
    ...(call.input === undefined ? {} : { 'content-type': 'application/json' }),
    ...call.headers,
  }
  const value = authorizationOf(sent)
  // Whoever names a DID without proof comes from this machine and through no proxy.
  if (value?.startsWith('Bearer did:') !== true) headers['x-forwarded-for'] = world.nextAddress()
  if (bindsKey(door)) {
    const token = (value ?? '').replace(/^\S+ /, '').trim()
    headers['dpop-bind'] = await proofFor(world, door, { key: world.spareKey, token })
  }
  return entriesOf({ ...headers, ...sent.headers })
}

/** Whether an HTTP client can be made to send it as it is. */
function isPlain(lines: readonly Line[]): boolean {
  const names = lines.map(([name]) => name)
  if (names.includes('host') || new Set(names).size < names.length) return false
  return lines.every(([, value]) => value === value.trim() && /^[\x20-\x7e]*$/.test(value))
}

async function fetched(
  url: URL,
  { body, headers, method }: { method: string; headers: Line[]; body: string | undefined },
): Promise<Got> {
  const response = await fetch(url, {
    method,
    headers: Object.fromEntries(headers),
    ...(body === undefined ? {} : { body }),
    redirect: 'manual',
    signal: AbortSignal.timeout(requestMs),
  })
  return answerOf(response.status, response.headers, await response.text())
}

async function written(
  port: number,
  request: {
    readonly method: string
    readonly url: URL
    readonly lines: readonly Line[]
    readonly body: string | undefined
  },
): Promise<Got> {
  const { method, url, lines, body = '' } = request
  const host = lines.some(([name]) => name === 'host') ? [] : [['host', url.host] as const]
  const frame = [
    ...host,
    ['content-length', String(Buffer.byteLength(body))],
    ['connection', 'close'],
  ]
  const head = [...lines, ...frame].map(([name, value]) => `${name}: ${value}`)
  const first = `${method} ${url.pathname}${url.search} HTTP/1.1`
  return read(await sendRaw(port, [first, ...head, '', body].join('\r\n')))
}

function read(answer: string): Got {
  const end = answer.indexOf('\r\n\r\n')
  const [first = '', ...rest] = answer.slice(0, end).split('\r\n')
  const headers = new Headers()
  for (const line of rest) {
    const colon = line.indexOf(':')
    headers.append(line.slice(0, colon), line.slice(colon + 1).trim())
  }
  return answerOf(Number(first.split(' ')[1]), headers, answer.slice(end + 4))
}

function answerOf(status: number, headers: Headers, text: string): Got {
  const isJson = headers.get('content-type')?.startsWith('application/json') === true
  const body: unknown = isJson ? JSON.parse(text) : undefined
  return { status, headers, text, body: isFields(body) ? body : {} }
}
