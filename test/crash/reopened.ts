import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readConfig } from '../../src/config.ts'
import { createLog } from '../../src/lib/log.ts'
import { type Running, serve } from '../../src/serve.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { freePort } from '../../src/lib/free-port.ts'
import { textOf, fieldsOf, xrpc, xrpcResponse } from '../kit/xrpc.ts'
import type { Did } from '../../src/atproto/syntax.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { fileComplaints, readActorFile } from './actor-file.ts'
import type { Dice } from './dice.ts'
import type { Answered, Ledger } from './ledger.ts'
import type { Recording } from './recording.ts'
import { recordsOfExport } from './repo.ts'

/**
 * Starts the service on a folder as it was found after a power cut, with its own recovery, and
 * writes once for everybody. @returns one complaint for each thing that it should have kept
 */
export async function complaintsOf(
  dataFolder: string,
  recording: Recording,
  { ledger, ...settings }: Settings & { readonly ledger: Ledger },
): Promise<string[]> {
  const port = await freePort()
  const url = `http://localhost:${port}`
  const config = readConfig(environmentOf(recording, { dataFolder, port, ...settings }))
  const log: string[] = []
  let running: Running
  try {
    running = await serve(config, around(log))
  } catch (error) {
    return [`the service does not start: ${String(error)}`]
  }
  const service = new Reopened(url, recording, ledger)
  let complaints: string[]
  try {
    complaints = await service.complaints()
  } catch (error) {
    complaints = [String(error)]
  } finally {
    await running.stop()
  }
  const key = readFileSync(join(dataFolder, 'signing_key'), 'utf8')
  if (key !== (ledger.serviceKey ?? key)) complaints.push('the service has another key')
  // In order it stored whatever it had still to store.
  for (const did of service.present) {
    try {
      complaints.push(...service.rowComplaints(did, dataFolder))
    } catch (error) {
      complaints.push(`${did}: ${String(error)}`)
    }
  }
  // What it said of its own accord tells more of what is wrong.
  return complaints.length === 0 ? [] : [...complaints, ...log]
}

/** An operator may have changed these since. */
interface Settings {
  readonly shards: number
  readonly synchronous: 'full' | 'normal'
}

export function anySettings(dice: Dice): Settings {
  return { shards: dice.one([0, 0, 2]), synchronous: dice.one(['full', 'full', 'normal']) }
}

/** The same service as before, with all its names. */
export function environmentOf(
  { env }: Recording,
  at: Settings & { readonly dataFolder: string; readonly port: number },
): Record<string, string> {
  return {
    ...env,
    STRATOS_DATA_DIR: at.dataFolder,
    STRATOS_PORT: String(at.port),
    STRATOS_PUBLIC_URL: `http://localhost:${env['STRATOS_PORT']}`,
    STRATOS_SHARDS: String(at.shards),
    STRATOS_SQLITE_SYNCHRONOUS: at.synchronous,
  }
}

function around(lines: string[]): Parameters<typeof serve>[1] {
  return {
    log: createLog('error', (line) => lines.push(line)),
    version: 'test',
    startWorker: () => new Worker(new URL('../../src/worker.ts', import.meta.url).href),
    died: (name, error) => {
      throw new Error(`${name} died`, { cause: error })
    },
  }
}

class Reopened {
  /** Who is enrolled. */
  readonly present: Did[] = []
  readonly #url: string
  readonly #recording: Recording
  readonly #ledger: Ledger
  readonly #written = new Map<Did, Answered>()

  constructor(url: string, recording: Recording, ledger: Ledger) {
    this.#url = url
    this.#recording = recording
    this.#ledger = ledger
  }

  async complaints(): Promise<string[]> {
    const complaints: string[] = []
    for (const [did, signingKey] of this.#ledger.enrolled) {
      const status = await this.#ask('zone.stratos.enrollment.status', did)
      if (status['enrolled'] !== true) {
        if (!this.#ledger.leaving.has(did)) complaints.push(`${did} is not enrolled any more`)
      } else if (status['signingKey'] !== signingKey) {
        complaints.push(`${did} has another key`)
      } else if (!this.#ledger.leaving.has(did)) {
        complaints.push(...(await this.#repoComplaints(did, signingKey)))
      }
    }
    for (const did of this.#ledger.left) {
      const status = await this.#ask('zone.stratos.enrollment.status', did)
      if (status['enrolled'] !== false) complaints.push(`${did} is enrolled again`)
    }
    return complaints
  }

  async #repoComplaints(did: Did, signingKey: string): Promise<string[]> {
    const { adminBasic: authorization } = this.#recording
    const call = { params: { did }, authorization }
    const response = await xrpcResponse(this.#url, 'zone.stratos.sync.getRepo', call)
    if (response.status !== 200) return [`${did} has no repo: ${await response.text()}`]
    let found
    try {
      found = await recordsOfExport(await response.bytes(), did, signingKey)
    } catch (error) {
      return [`the repo of ${did} does not verify: ${String(error)}`]
    }
    this.present.push(did)
    await this.#write(did)
    return this.#ledger.complaints(did, found.records)
  }

  /** Whoever was here goes on as before. */
  async #write(did: Did): Promise<void> {
    const record = privatePost('request 0', [this.#recording.boundary])
    const { status, body } = await xrpc(this.#url, 'zone.stratos.repo.createRecord', {
      input: { repo: did, collection: postCollection, record },
      authorization: `Bearer ${did}`,
    })
    if (status !== 200) throw new Error(`a write was answered ${status} ${JSON.stringify(body)}`)
    const rkey = textOf(body, 'uri').split('/').at(-1) ?? ''
    const rev = textOf(fieldsOf(body, 'commit'), 'rev')
    const write = { action: 'create', rkey, cid: textOf(body, 'cid') } as const
    this.#written.set(did, { rev, writes: [write] })
  }

  rowComplaints(did: Did, dataFolder: string): string[] {
    const file = readActorFile(join(actorFolder(dataFolder, did), 'stratos.sqlite'), did)
    const written = this.#written.get(did)
    const complaints = fileComplaints(file, {
      answered: [...this.#ledger.answered(did), ...(written === undefined ? [] : [written])],
      pds: this.#recording.pds.of(did),
    })
    const ops = file.events.flatMap((event) => event.ops)
    const made = new Set(ops.map(({ path, cid }) => `${path} ${cid}`))
    const early = this.#ledger.published.filter(
      (stub) => stub.did === did && !made.has(`${postCollection}/${stub.rkey} ${stub.cid}`),
    )
    return [...complaints, ...early.map(({ rkey }) => `${did}: the stub of ${rkey} came too early`)]
  }

  async #ask(nsid: string, did: Did): Promise<Record<string, unknown>> {
    const { adminBasic: authorization } = this.#recording
    const { status, body } = await xrpc(this.#url, nsid, { params: { did }, authorization })
    if (status !== 200) throw new Error(`${nsid} was answered ${status} ${JSON.stringify(body)}`)
    return body
  }
}
