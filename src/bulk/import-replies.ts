import { XrpcError } from '../atproto/errors.ts'
import { type Did, recordPlace } from '../atproto/syntax.ts'
import { checkReach, type Targets } from '../service/targets.ts'
import { parametersFor } from '../store/parameters.ts'
import type { Sqlite } from '../store/sqlite.ts'

interface Reply {
  readonly path: string
  readonly boundaries: readonly string[]
  readonly parent: string
}

interface Parts {
  readonly did: Did
  /** The database that the records are being written to. */
  readonly sqlite: Sqlite
  /** Boundaries of the importing person, and with them of all that they bring. */
  readonly own: readonly string[]
  /** Boundaries of those of some records of others that this person may see. */
  readonly targets: (uris: readonly string[]) => Promise<Targets>
}

/**
 * Replies among records that are imported: none of them reaches anybody whom its parent does not,
 * where that parent is one that the person can see here. Others are taken as they are.
 */
export class ImportReplies {
  readonly #parts: Parts
  readonly #prefix: string
  /** To records that the import itself may still bring. */
  readonly #within: Reply[] = []
  #toOthers: Reply[] = []

  constructor(parts: Parts) {
    this.#parts = parts
    this.#prefix = `at://${parts.did}/`
  }

  /** @throws XrpcError 400 ReplyBoundaryEscalation */
  async add(reply: Reply): Promise<void> {
    if (reply.parent.startsWith(this.#prefix)) this.#within.push(reply)
    else if (this.#toOthers.push(reply) >= askedAtOnce) await this.#checkOthers()
  }

  /** To be called when every record is in its place. @throws as `add` does */
  async finish(step: () => Promise<void>): Promise<void> {
    await this.#checkOthers()
    for (const reply of this.#within) {
      const reach = this.#reachOf(reply.parent)
      if (reach !== undefined) check(reply, reach)
      await step()
    }
  }

  async #checkOthers(): Promise<void> {
    const replies = this.#toOthers
    this.#toOthers = []
    if (replies.length === 0) return
    const targets = await this.#parts.targets([...new Set(replies.map(({ parent }) => parent))])
    for (const reply of replies) {
      const reach = Object.hasOwn(targets, reply.parent) ? targets[reply.parent] : undefined
      if (reach !== undefined) check(reply, reach)
    }
  }

  /** Of a record of this import; undefined where it does not come along. */
  #reachOf(uri: string): readonly string[] | undefined {
    const place = recordPlace(uri)
    if (place === undefined) return undefined
    const { places, args } = parametersFor(this.#parts.own, 3)
    const sql = `select boundary from stratos_record_boundary
      where collection = $1 and rkey = $2 and boundary in (${places.join(', ')})`
    const rows = this.#parts.sqlite.query<{ boundary: string }>(
      sql,
      place.collection,
      place.rkey,
      ...args,
    )
    return rows.length === 0 ? undefined : rows.map(({ boundary }) => boundary)
  }
}

const askedAtOnce = 100

function check({ path, boundaries }: Reply, reach: readonly string[]): void {
  try {
    checkReach(boundaries, reach)
  } catch (error) {
    throw error instanceof XrpcError ? ofRecord(path, error) : error
  }
}

/** The refusal of one record among many. */
export function ofRecord(path: string, { status, error, message, fields }: XrpcError): XrpcError {
  return new XrpcError(status, error, `${path}: ${message}`, { fields })
}
