import { encode } from '../../src/atproto/cbor.ts'
import { cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import type { DataObject, DataValue } from '../../src/atproto/data.ts'
import {
  type AtUri,
  type Did,
  parseDid,
  parseNsid,
  parseRkey,
  recordUri,
} from '../../src/atproto/syntax.ts'
import { type IndexSql, openIndex } from '../../src/indexer/database.ts'
import type { PostgresServer } from '../kit/postgres.ts'

export const serviceDid = parseDid('did:web:stratos.example.com')
export const otherServiceDid = parseDid('did:web:other.example.com')

/** A DID for tests: the same name gives the same one. */
export function didOf(name: string): Did {
  const hash = Bun.SHA256.hash(name, 'hex').slice(0, 24)
  return parseDid(`did:plc:${hash.replaceAll(/[0189]/g, 'z')}`)
}

export function boundaryOf(name: string, service: Did = serviceDid): string {
  return `${service}/${name}`
}

/** Where the service of a DID is. */
export function urlOf(service: Did): string {
  return `https://${service.slice('did:web:'.length)}`
}

export interface TestPost {
  readonly author: Did
  readonly rkey: string
  /** Bare names. */
  readonly boundaries: readonly string[]
  readonly at: number
  readonly service?: Did
  readonly text?: string
  readonly parent?: AtUri
  readonly embed?: DataValue
}

export function uriOf({ author, rkey }: Pick<TestPost, 'author' | 'rkey'>): AtUri {
  return recordUri(author, collection, parseRkey(rkey))
}

const collection = parseNsid('zone.stratos.feed.post')

/** An index of which a test writes the rows itself. */
export class SmallIndex implements AsyncDisposable {
  readonly url: string
  readonly sql: IndexSql

  private constructor(url: string, sql: IndexSql) {
    this.url = url
    this.sql = sql
  }

  static async open(server: PostgresServer): Promise<SmallIndex> {
    const url = await server.database()
    return new SmallIndex(url, await openIndex({ url }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.end()
  }

  async heard(service: Did, at: number): Promise<void> {
    await this.sql`insert into stratos_service_state (service, "serviceUrl", "heardAt")
      values (${service}, '', ${new Date(at)})
      on conflict (service) do update set "heardAt" = excluded."heardAt"`
  }

  async enroll(did: Did, names: readonly string[], service: Did = serviceDid): Promise<void> {
    await this.sql`
      insert into stratos_enrollment
        (service, did, "serviceUrl", "enrolledAt", "lastChecked", boundaries)
      values (${service}, ${did}, ${urlOf(service)}, now(), now(),
        ${names.map((name) => boundaryOf(name, service))})
      on conflict (service, did) do update set boundaries = excluded.boundaries`
  }

  async unenroll(did: Did, service: Did = serviceDid): Promise<void> {
    await this.sql`delete from stratos_enrollment where service = ${service} and did = ${did}`
  }

  /** @param path empty for the whole repo */
  async takeDown(did: Did, path: string, service: Did = serviceDid): Promise<void> {
    await this.sql`insert into stratos_takedown (service, did, path)
      values (${service}, ${did}, ${path}) on conflict do nothing`
  }

  async lift(did: Did, path: string, service: Did = serviceDid): Promise<void> {
    await this.sql`delete from stratos_takedown
      where service = ${service} and did = ${did} and path = ${path}`
  }

  async post(post: TestPost): Promise<AtUri> {
    const { author, rkey, boundaries, at, service = serviceDid, text = 'hello', parent } = post
    const uri = uriOf(post)
    const record = recordOf(post)
    const content = encode(record)
    const time = new Date(at)
    await this.sql.begin(async (sql) => {
      await sql`
        insert into stratos_post (service, uri, cid, rkey, creator, text, "replyRoot",
          "replyParent", boundaries, record, "createdAt", "indexedAt")
        values (${service}, ${uri}, ${cidToString(cidForCbor(content))}, ${rkey}, ${author}, ${text.replaceAll('\0', '')},
          ${parent ?? null}, ${parent ?? null},
          ${boundaries.map((name) => boundaryOf(name, service))}, ${content}, ${time}, ${time})`
      await sql`
        insert into stratos_post_boundary (service, boundary, "sortAt", uri, creator)
        select service, boundary, "sortAt", uri, creator
        from stratos_post cross join unnest(boundaries) as b (boundary)
        where service = ${service} and uri = ${uri}`
    })
    return uri
  }

  async remove(uri: AtUri, service: Did = serviceDid): Promise<void> {
    await this.sql.begin(async (sql) => {
      await sql`delete from stratos_post_boundary where service = ${service} and uri = ${uri}`
      await sql`delete from stratos_post where service = ${service} and uri = ${uri}`
    })
  }
}

export function recordOf(post: TestPost): DataObject {
  const { boundaries, at, service = serviceDid, text = 'hello', embed } = post
  return {
    ...(embed === undefined ? {} : { embed }),
    $type: collection,
    text,
    boundary: { values: boundaries.map((name) => ({ value: boundaryOf(name, service) })) },
    createdAt: new Date(at).toISOString(),
  }
}
