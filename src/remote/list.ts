import { type Fetch, FetchFailed } from './fetch.ts'

export interface FetchedList {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly etag: string | null
}

/**
 * The text at `uri`, or that it is still the one that came with `etag`.
 * @throws FetchRefused
 * @throws FetchFailed when the answer is anything else
 */
export async function fetchList(
  uri: string,
  ask: { readonly fetch: Fetch; readonly etag: string | null; readonly signal: AbortSignal },
): Promise<FetchedList | 'unchanged'> {
  const { fetch, etag, signal } = ask
  const headers = { accept: 'text/plain, */*;q=0.1', ...(etag && { 'if-none-match': etag }) }
  const response = await fetch(uri, { signal, headers })
  if (response.status === 304 && etag !== null) return 'unchanged'
  if (response.status !== 200) {
    throw new FetchFailed(new URL(uri).host, `answered the status ${response.status}`)
  }
  return {
    bytes: new Uint8Array(await response.arrayBuffer()),
    etag: etagOf(response.headers.get('etag')),
  }
}

/** An entity tag that may be sent back; null for any other text. */
export function etagOf(text: unknown): string | null {
  return typeof text === 'string' && etagForm.test(text) ? text : null
}

/** About a million DIDs. */
export const listBytesMax = 32 * 1024 * 1024
const etagForm = /^(W\/)?"[!#-~]{0,250}"$/
