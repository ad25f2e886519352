import { isIP } from 'node:net'

/** One environment variable: how it is read, what stands in for it, and what to tell people. */
export interface Variable<Value> {
  readonly name: string
  readonly fallback: Value
  /** How the fallback is shown, where the value itself says too little. */
  readonly shown?: string
  readonly text: string
  readonly example: string
  /** @throws Error whose message says what is wrong */
  read(text: string): Value
}

export function variable<Value, const Fallback>(
  name: string,
  fallback: Fallback,
  read: (text: string) => Value,
  rest: { text: string; example: string; shown?: string },
): Variable<Value | Fallback> {
  return { name, fallback, read, ...rest }
}

export function readText(text: string): string {
  if (text === '') throw new Error('must not be empty')
  return text
}

export function readBoolean(text: string): boolean {
  if (text === 'true' || text === '1') return true
  if (text === 'false' || text === '0') return false
  throw new Error(`must be true, false, 1 or 0, not ${JSON.stringify(text)}`)
}

export function between(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= least && value <= most) return value
    throw new Error(`must be a whole number from ${least} to ${most}, not ${JSON.stringify(text)}`)
  }
}

export function oneOf<const Choice extends string>(...choices: Choice[]): (text: string) => Choice {
  return (text) => {
    const choice = choices.find((one) => one === text)
    if (choice !== undefined) return choice
    throw new Error(`must be ${choices.join(' or ')}, not ${JSON.stringify(text)}`)
  }
}

export function listOf(read: (text: string) => string): (text: string) => readonly string[] {
  return (text) => {
    const values = text === '' ? [] : text.split(',').map((part) => read(part.trim()))
    if (new Set(values).size !== values.length) throw new Error('names a value twice')
    return values
  }
}

export function readOrigin(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const web = url?.protocol === 'https:' || url?.protocol === 'http:'
  if (url !== undefined && web && (text === url.origin || text === `${url.origin}/`)) {
    return url.origin
  }
  const fault = 'must be a URL of scheme and host alone'
  // What stands before an @ may be a password.
  throw new Error(text.includes('@') ? fault : `${fault}, not ${JSON.stringify(text)}`)
}

export function readUrl(...schemes: readonly string[]): (text: string) => string {
  return (text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (url !== undefined && schemes.includes(url.protocol)) return text
    // Not repeated: a path, a query or what should have been a password may be a secret.
    throw new Error(
      `must be a URL that starts with ${schemes.map((one) => `${one}//`).join(' or ')}`,
    )
  }
}

/** A page or file on the web that anybody may be sent to. */
export function readWebUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === 'https:' && url.username === '' && url.password === '') return url.href
  const fault = 'must be a URL that starts with https://, without a user name'
  throw new Error(text.includes('@') ? fault : `${fault}, not ${JSON.stringify(text)}`)
}

export function readNetwork(text: string): string {
  const [address = '', bits = ''] = text.split('/')
  const most = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1
  if (/^\d{1,3}$/.test(bits) && Number(bits) <= most) return text
  throw new Error(`must hold networks as address/bits, not ${JSON.stringify(text)}`)
}
