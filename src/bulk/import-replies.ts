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
  #toOthers: Reply[] = []

  constructor(parts: Parts) {
    this.#parts = parts
    this.#prefix = `at://${parts.did}/`
  }

  /** @throws XrpcError 400 ReplyBoundaryEscalation */
  async add(reply: Reply): Promise<void> {
    // The import itself may still bring the parent.
    if (reply.parent.startsWith(this.#prefix)) return
    if (this.#toOthers.push(reply) >= askedAtOnce) await this.#checkOthers()
  }

  /** To be called when every record is in its place. @throws as `add` does */
  async finish(step: () => Promise<void>): Promise<void> {
    await this.#checkOthers()
    const { sqlite } = this.#parts
    const replies = sqlite.each<{ readonly uri: string; readonly linkTo: string }>(selectReplies)
    for (const { uri, linkTo } of replies) {
      await step()
      const reach = linkTo.startsWith(this.#prefix) ? this.#boundariesOf(linkTo) : []
      // A record has a boundary: there is none of that name.
      if (reach.length === 0) continue
      check({ path: uri.slice(this.#prefix.length), boundaries: this.#boundariesOf(uri) }, reach)
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

  /** Of a record of this import; empty where it does not come along. */
  #boundariesOf(uri: string): string[] {
    const place = recordPlace(uri)
    if (place === undefined) return []
    const { places, args } = parametersFor(this.#parts.own, 3)
    const sql = `select boundary from stratos_record_boundary
      where collection = $1 and rkey = $2 and boundary in (${places.join(', ')})`
    const { collection, rkey } = place
    const rows = this.#parts.sqlite.query<{ boundary: string }>(sql, collection, rkey, ...args)
    return rows.map(({ boundary }) => boundary)
  }
}

/** In the order of the tree. */
const selectReplies = `select uri, "linkTo" from stratos_backlink
  where path = 'reply.parent' order by uri`
const askedAtOnce = 100

function check(
  { path, boundaries }: Pick<Reply, 'path' | 'boundaries'>,
  reach: readonly string[],
): void {
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
