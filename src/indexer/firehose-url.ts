/** The event stream of a PDS or relay. */
export interface FirehoseUrl {
  /** With what may be a secret of the operator's: user, password and query. */
  readonly url: URL
  /** The same without, for logs and as a key. */
  readonly name: string
}

/**
 * @param text origin of a PDS or relay, or the whole URL of its stream
 * @throws FirehoseUrlError whose message repeats nothing of it
 */
export function parseFirehoseUrl(
  text: string,
  { allowPrivateNetwork }: { readonly allowPrivateNetwork: boolean },
): FirehoseUrl {
  const url = URL.parse(text)
  if (url === null || (url.protocol !== 'wss:' && url.protocol !== 'ws:')) {
    throw new FirehoseUrlError('it must be a URL as in wss://relay.example.com')
  }
  if (url.protocol === 'ws:' && !allowPrivateNetwork) {
    throw new FirehoseUrlError('it must begin with wss:// outside of closed networks')
  }
  url.hash = ''
  if (url.pathname === '/') url.pathname = streamPath
  return { url, name: `${url.protocol}//${url.host}${url.pathname}` }
}

export class FirehoseUrlError extends Error {
  override readonly name = 'FirehoseUrlError'
}

const streamPath = '/xrpc/com.atproto.sync.subscribeRepos'
