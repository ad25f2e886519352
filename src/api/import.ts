import { join } from 'node:path'
import { invalidRequest, overloaded, XrpcError } from '../atproto/errors.ts'
import type { Did } from '../atproto/syntax.ts'
import type { Bulk } from '../bulk/bulk.ts'
import type { ImportAsk, Imported } from '../bulk/messages.ts'
import { assert } from '../lib/assert.ts'
import type { Log } from '../lib/log.ts'
import { checkBoundaries } from '../service/boundary.ts'
import type { ImportStore } from '../store/import.ts'
import type { Enrollment } from '../store/service.ts'
import { repoTakendown } from './caller.ts'
import { flag, optionalTexts } from '../atproto/members.ts'
import { activeMember, type WriteParts } from './repo-writes.ts'
import { findTargets } from './targets.ts'
import { checkLength, withUpload } from './upload.ts'
import type { Answer, Call, Method } from './xrpc.ts'

interface Parts extends WriteParts {
  readonly bulk: Bulk
  readonly imports: ImportStore
  readonly config: { readonly dataDir: string; readonly importBytesMax: number }
  readonly log: Log
}

/** Where bodies are kept for as long as they are read; what a kill left there goes at the start. */
export function importFolder(dataDir: string): string {
  return join(dataDir, 'imports')
}

/** How a repo comes here as a whole. @see protocol.md, section 6 */
export function importMethods(parts: Parts): Record<string, Method> {
  const imports = new Imports(parts)
  return {
    'zone.stratos.repo.importRepo': {
      audience: 'user',
      tokens: 'single-use',
      accepts: ['service-auth', 'session', 'dpop-token', 'development'],
      isLong: true,
      screen: async ({ request }) => {
        if (
          !/^application\/vnd\.ipld\.car\s*(;|$)/i.test(request.headers.get('content-type') ?? '')
        ) {
          throw invalidRequest(
            'the body must be a CAR, with Content-Type: application/vnd.ipld.car',
          )
        }
        checkLength(request, parts.config.importBytesMax)
      },
      handle: (call) => imports.import(call),
    },
  }
}

class Imports {
  readonly #parts: Parts
  readonly #running = new Set<Did>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async import(call: Call): Promise<Answer> {
    const { caller } = call
    assert(caller.kind === 'user', 'the door lets people in and nobody else')
    const { did } = caller
    if (this.#running.has(did)) throw overloaded('an import of this account is running already')
    if (this.#running.size >= runningMax) throw overloaded('too many imports at once, try again')
    this.#running.add(did)
    try {
      return await this.#receive(did, call)
    } finally {
      this.#running.delete(did)
    }
  }

  async #receive(did: Did, { request, params, requestId }: Call): Promise<Answer> {
    const { config, log, imports } = this.#parts
    // First whatever would make all the sending vain.
    const author = await this.#author(did)
    await this.#checkRepo(did, requestId)
    const boundaryMap = this.#boundaryMap(optionalTexts(params, 'boundaryMap') ?? [], author)
    const wantsStubs = flag(params, 'stubs')
    const limits = { folder: importFolder(config.dataDir), bytesMax: config.importBytesMax }
    return await withUpload(request, { ...limits, ...pace }, async (path) => {
      log.info('import.received', { did, requestId })
      const imported = await this.#store({ did, path, boundaryMap, wantsStubs }, requestId)
      const { records, rewritten } = imported
      log.info('import.done', { did, requestId, records, rewritten })
      const nowMs = Date.now()
      if (records > 0) await imports.imported(did, { nowMs, sinceMs: nowMs - dayMs })
      // Some of what they name may have come before them.
      this.#parts.blobs.nudge(did, requestId)
      return { body: { imported: records, rewritten } }
    })
  }

  /** Whoever may write now. @throws XrpcError 403 NotEnrolled, RepoTakendown */
  async #author(did: Did): Promise<Enrollment> {
    const author = await activeMember(did, this.#parts.enrollments)
    if ((await this.#parts.takedowns.of(did)).repo) throw repoTakendown()
    return author
  }

  /** @throws XrpcError 409 RepoAlreadyExists, 429 RateLimitExceeded */
  async #checkRepo(did: Did, requestId: string): Promise<void> {
    const { imports, call } = this.#parts
    const { collections } = await call(did, requestId, { kind: 'collections', view: 'all' })
    if (collections.length > 0) {
      const message = 'an import needs a repo without records, and here are some'
      throw new XrpcError(409, 'RepoAlreadyExists', message)
    }
    const lastAtMs = await imports.lastAtMs(did)
    const waitMs = (lastAtMs ?? -Infinity) + dayMs - Date.now()
    if (waitMs <= 0) return
    throw new XrpcError(429, 'RateLimitExceeded', 'a repo can be imported once a day', {
      headers: { 'retry-after': String(Math.ceil(waitMs / 1000)) },
    })
  }

  async #store({ did, wantsStubs, ...received }: Received, requestId: string): Promise<Imported> {
    const { bulk, call, config, outbox, stubCollections, takedowns } = this.#parts
    const release = wantsStubs ? await outbox.hold(did) : undefined
    try {
      // Anew: the body may have taken its time, and the person may have left meanwhile.
      const author = await this.#author(did)
      const { boundaries, scope } = author
      const takendown = (await takedowns.of(did)).records
      const stubs = wantsStubs ? stubCollections(scope) : []
      const bytesMax = config.importBytesMax
      return await bulk.import(
        { did, boundaries, takendown, stubs, bytesMax, ...received },
        {
          lend: () => call(did, requestId, { kind: 'lend' }),
          giveBack: async () => void (await call(did, requestId, { kind: 'return' })),
          targets: (uris) => findTargets(uris, { ...this.#parts, author, requestId }),
        },
      )
    } finally {
      release?.()
    }
  }

  /** @throws XrpcError 400 InvalidRequest, ServiceMismatch, ForbiddenDomain, ForbiddenBoundary */
  #boundaryMap(pairs: readonly string[], { boundaries: own }: Enrollment): [string, string][] {
    const { serviceDid, boundaries: allowed } = this.#parts.rules
    const map = new Map<string, string>()
    for (const pair of pairs) {
      const [from = '', to = '', ...more] = pair.split('=')
      if (!/^did:[^/]+\/.+$/.test(from) || to === '' || more.length > 0 || map.has(from)) {
        throw invalidRequest('boundaryMap must be old=new, both with their DIDs, each old one once')
      }
      if (from.startsWith(`${serviceDid}/`)) {
        throw invalidRequest('boundaryMap is for boundaries of another service than this one')
      }
      checkBoundaries({ values: [{ value: to }] }, { serviceDid, allowed, own })
      map.set(from, to)
    }
    return [...map]
  }
}

interface Received extends Pick<ImportAsk, 'did' | 'path' | 'boundaryMap'> {
  readonly wantsStubs: boolean
}

const runningMax = 3
const dayMs = 24 * 3_600_000
/** So slow that a connection is hardly one. */
const pace = { windowBytesMin: 1024 * 1024, windowMs: 30_000 }
