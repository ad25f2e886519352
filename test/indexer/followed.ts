import { parseDid } from '../../src/atproto/syntax.ts'
import { createLog } from '../../src/lib/log.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import { followedService } from '../../src/indexer/followed-service.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'
import { Identities } from '../../src/remote/identity.ts'
import { Indexing } from '../../src/indexer/indexing.ts'
import type { FollowedService } from '../../src/indexer/follower.ts'
import type { SocketLimits } from '../../src/indexer/stream-socket.ts'
import type { Streaming } from '../api/stream-readers.ts'
import type { PostgresServer } from '../kit/postgres.ts'
import { postCollection } from '../kit/post.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, listOf, textOf } from '../kit/xrpc.ts'

/** An index that follows a real service, and what it should hold. */
export class Followed implements AsyncDisposable {
  readonly streaming: Streaming
  readonly sql: IndexSql
  readonly url: string
  readonly log: string[] = []
  readonly names: readonly string[]
  #indexing: Indexing | undefined

  private constructor(
    streaming: Streaming,
    names: readonly string[],
    { sql, url }: { sql: IndexSql; url: string },
  ) {
    this.names = names
    this.streaming = streaming
    this.sql = sql
    this.url = url
  }

  static async open(
    streaming: Streaming,
    names: readonly string[],
    server: PostgresServer,
  ): Promise<Followed> {
    const url = await server.database()
    return new Followed(streaming, names, { sql: await openIndex({ url }), url })
  }

  /** Another process that fills the same index. */
  indexing(over: Partial<FollowedService> = {}, limits: SocketLimits = {}): Indexing {
    const log = createLog('debug', (line) => void this.log.push(line))
    const { index, sql } = { index: { url: this.url }, sql: this.sql }
    return new Indexing({
      index,
      sql,
      services: [{ ...this.service, ...over }],
      log,
      standbyMs: 50,
      allowPrivateNetwork: true,
      limits,
    })
  }

  start(over: Partial<FollowedService> = {}, limits: SocketLimits = {}): Indexing {
    const indexing = this.indexing(over, limits)
    this.#indexing = indexing
    indexing.start()
    return indexing
  }

  async stop(): Promise<void> {
    await this.#indexing?.stop()
    this.#indexing = undefined
  }

  /** As an AppView of all boundaries reads it. */
  get service(): FollowedService {
    const { streaming } = this
    const { stratos, ofAll } = streaming
    const identities = new Identities({ plcUrl: stratos.directory.url, fetch, now: Date.now })
    const authorize = async (_: string, lxm: string) => await streaming.token(ofAll, lxm)
    const fetches = { named: fetch, found: fetch }
    const parts = { authorize, identities, fetches, allowPrivateNetwork: true }
    return followedService({ did: parseDid(stratos.did), origin: stratos.url }, parts)
  }

  /** Waits until the index holds what the repos hold, row by row. */
  async same(): Promise<void> {
    let rows: readonly string[] = []
    let wanted: readonly string[] = []
    try {
      await eventually(
        'equal rows',
        async () => {
          wanted = await this.wanted()
          rows = await this.rows()
          return Bun.deepEquals(rows, wanted) ? true : undefined
        },
        { withinMs: 20_000, everyMs: 20 },
      )
    } catch (error) {
      const extra = rows.filter((row) => !wanted.includes(row))
      const missing = wanted.filter((row) => !rows.includes(row))
      throw new Error(JSON.stringify({ extra, missing, log: this.log.slice(-20) }, null, 1), {
        cause: error,
      })
    }
  }

  /** One line for each post in each boundary, and one for each member. */
  async rows(): Promise<readonly string[]> {
    const posts = await this.sql<{ line: string }[]>`
      select p.uri || ' ' || p.cid || ' ' || p.text || ' ' || b.boundary as line
      from stratos_post p join stratos_post_boundary b on b.uri = p.uri and b.service = p.service`
    const bare = await this.sql<{ line: string }[]>`
      select p.uri || ' hidden' as line from stratos_post p
      where not exists (select from stratos_post_boundary b where b.uri = p.uri)`
    const members = await this.sql<{ line: string }[]>`
      select rtrim(did || ' ' || array_to_string(boundaries, ' ')) as line from stratos_enrollment`
    return [...posts, ...bare, ...members].map(({ line }) => line).toSorted()
  }

  async wanted(): Promise<readonly string[]> {
    const { stratos } = this.streaming
    const lines: string[] = []
    for (const name of this.names) {
      const { did, bearer } = stratos.person(name)
      const status = await stratos.call('zone.stratos.enrollment.status', {
        params: { did },
        authorization: stratos.adminBasic,
      })
      if (status.body['enrolled'] !== true) continue
      const names = listOf(status.body, 'boundaries').map((one) => textOf(one, 'value'))
      lines.push([did, ...names].join(' '))
      for (let cursor = ''; ;) {
        const params = {
          repo: did,
          collection: postCollection,
          limit: 100,
          ...(cursor && { cursor }),
        }
        const page = await stratos.call('com.atproto.repo.listRecords', {
          params,
          authorization: bearer,
        })
        for (const record of listOf(page.body, 'records')) {
          const value = fieldsOf(record, 'value')
          const boundaries = listOf(fieldsOf(value, 'boundary'), 'values')
          for (const one of boundaries) {
            const head = [textOf(record, 'uri'), textOf(record, 'cid'), textOf(value, 'text')]
            lines.push([...head, textOf(one, 'value')].join(' '))
          }
        }
        if (typeof page.body['cursor'] !== 'string') break
        cursor = page.body['cursor']
      }
    }
    return lines.toSorted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await this.sql.end({ timeout: 1 })
  }
}

const fetch = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 60_000,
  responseBytesMax: 64 * 1024 * 1024,
})
