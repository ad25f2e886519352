import { createReadStream, readFileSync, statSync } from 'node:fs'
import { isLoopbackHost } from '../config.ts'
import { variables } from '../config/variables.ts'
import { FileSource } from '../lib/byte-source.ts'
import { NamelessFile } from '../lib/nameless-file.ts'
import { createGuardedFetch, FetchFailed, FetchRefused } from '../remote/fetch.ts'
import { InputFailed, UsageError } from './failures.ts'
import { setting } from './setting.ts'
import type { Surroundings } from './surroundings.ts'

export interface InputSurroundings extends Surroundings {
  readonly stdin: () => AsyncIterable<Uint8Array>
}

export interface InputName {
  /** A file, `-` for standard input, or a URL. */
  readonly name: string
  /** Path of a file with the value of that header, for a URL. */
  readonly authorization: string | undefined
}

/**
 * @throws UsageError
 * @throws InputFailed
 */
export async function openInput(input: InputName, around: InputSurroundings): Promise<FileSource> {
  const { name, authorization } = input
  const url = /^https?:\/\//i.test(name) ? URL.parse(name) : null
  if (url !== null) return await download(url, authorization, around)
  if (authorization !== undefined) throw new UsageError('--authorization is for a URL alone')
  return await reading(name === '-' ? 'standard input' : name, async () => {
    if (name === '-') return await copied(around.stdin(), around)
    // A pipe may have a name, too, and can be read only once.
    if (!statSync(name).isFile()) return await copied(createReadStream(name), around)
    return new FileSource(name)
  })
}

/** Far above what a person writes in years; more would only fill the disk. */
const copyBytesMax = 1024 ** 3
/** A slow line may take its time, but not fall silent. */
const downloadTimeoutMs = 6 * 60 * 60_000
const silenceMaxMs = 60_000
const progressBytes = 64 * 1024 ** 2
const headerForm = /^[\x21-\x7e][\x20-\x7e]{0,8191}$/

async function download(
  url: URL,
  authorization: string | undefined,
  around: InputSurroundings,
): Promise<FileSource> {
  const allowPrivateNetwork = setting(variables.privateNetwork, around.env)
  const headers = authorization === undefined ? {} : await credential(url, authorization)
  const silence = new AbortController()
  const alarm = setTimeout(() => silence.abort(), silenceMaxMs)
  const fetch = createGuardedFetch({
    allowPrivateNetwork,
    timeoutMs: downloadTimeoutMs,
    responseBytesMax: copyBytesMax,
  })
  const copy = new Copy(around)
  try {
    const sink = (bytes: Uint8Array) => {
      alarm.refresh()
      copy.add(bytes)
    }
    const response = await fetch(url, { headers, sink, signal: silence.signal })
    if (response.status === 200) return copy.source()
    throw new InputFailed(`${url.host} answered ${response.status}, and not with a CAR`)
  } catch (error) {
    copy.drop()
    if (silence.signal.aborted) {
      throw new InputFailed(`${url.host} sent nothing for ${silenceMaxMs / 1000} seconds`)
    }
    if (!(error instanceof FetchFailed) && !(error instanceof FetchRefused)) throw error
    const isOurRule = error instanceof FetchRefused && !allowPrivateNetwork
    const hint = isOurRule ? `; ${variables.privateNetwork.name}=true admits more` : ''
    throw new InputFailed(`the CAR could not be had: ${error.message}${hint}`, { cause: error })
  } finally {
    clearTimeout(alarm)
  }
}

/** From a file, since other people on the machine see arguments and environment. */
async function credential(url: URL, path: string): Promise<{ authorization: string }> {
  if (url.protocol !== 'https:' && !isLoopbackHost(url.hostname)) {
    throw new UsageError(`a credential is not sent over http to ${url.hostname}`)
  }
  const authorization = await reading(path, async () => readFileSync(path, 'latin1').trim())
  if (headerForm.test(authorization)) return { authorization }
  throw new UsageError('the file of --authorization must hold the value of the header, in one line')
}

async function copied(
  pieces: AsyncIterable<Uint8Array>,
  around: InputSurroundings,
): Promise<FileSource> {
  const copy = new Copy(around)
  try {
    for await (const bytes of pieces) copy.add(bytes)
    return copy.source()
  } catch (error) {
    copy.drop()
    throw error
  }
}

async function reading<Result>(name: string, task: () => Promise<Result>): Promise<Result> {
  try {
    return await task()
  } catch (error) {
    if (!(error instanceof Error) || !('syscall' in error) || !('code' in error)) throw error
    throw new InputFailed(`${name} cannot be read: ${String(error.code)}`, { cause: error })
  }
}

/** What is no file yet. */
class Copy {
  readonly #file = new NamelessFile()
  readonly #around: InputSurroundings
  #told = 0

  constructor(around: InputSurroundings) {
    this.#around = around
  }

  add(bytes: Uint8Array): void {
    if (this.#file.size + bytes.length > copyBytesMax) {
      throw new InputFailed(`more than ${copyBytesMax} bytes came`)
    }
    this.#file.add(bytes)
    const { size } = this.#file
    if (size - this.#told < progressBytes) return
    this.#told = size
    this.#around.tell(`${Math.floor(size / 1024 ** 2)} MiB so far ...`)
  }

  /** Closed with the source. */
  source(): FileSource {
    return this.#file.source()
  }

  drop(): void {
    this.#file[Symbol.dispose]()
  }
}
