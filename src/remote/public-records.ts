import type { Did, Nsid } from '../atproto/syntax.ts'
import { type Fetch, FetchFailed } from './fetch.ts'

/** A record of a public repo, as its PDS answers anybody who asks. */
export interface PublicRecord {
  readonly rkey: string
  readonly value: unknown
}

/**
 * All records of a public collection, of which there may be a few hundred.
 * @throws FetchRefused
 * @throws FetchFailed also for an answer that is none of XRPC
 */
export async function publicRecords(
  place: { readonly pds: string; readonly repo: Did; readonly collection: Nsid },
  fetch: Fetch,
): Promise<PublicRecord[]> {
  const { pds, repo, collection } = place
  const url = new URL('/xrpc/com.atproto.repo.listRecords', pds)
  url.search = new URLSearchParams({ repo, collection, limit: String(pageRecords) }).toString()
  const prefix = `at://${repo}/${collection}/`
  const records: PublicRecord[] = []
  for (let page = 0; page < pagesMax; page++) {
    const answer = await answerOf(url, fetch)
    for (const { uri, value } of listOf(answer, url.host)) {
      if (!uri.startsWith(prefix)) throw new FetchFailed(url.host, 'answered others’ records')
      records.push({ rkey: uri.slice(prefix.length), value })
    }
    const cursor = memberOf(answer, 'cursor')
    if (typeof cursor !== 'string') return records
    url.searchParams.set('cursor', cursor)
  }
  throw new FetchFailed(url.host, 'has a list that does not end')
}

const pageRecords = 100
const pagesMax = 10

async function answerOf(url: URL, fetch: Fetch): Promise<unknown> {
  const response = await fetch(url)
  if (response.status !== 200) throw new FetchFailed(url.host, `answered ${response.status}`)
  try {
    const answer: unknown = JSON.parse(await response.text())
    return answer
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new FetchFailed(url.host, 'answered something else than XRPC')
  }
}

function listOf(answer: unknown, host: string): { uri: string; value: unknown }[] {
  const records = memberOf(answer, 'records')
  if (!Array.isArray(records)) throw new FetchFailed(host, 'answered something else than XRPC')
  return records.map((record) => {
    const uri = memberOf(record, 'uri')
    if (typeof uri !== 'string') throw new FetchFailed(host, 'answered a record without a name')
    return { uri, value: memberOf(record, 'value') }
  })
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
