import { FetchFailed, FetchRefused, pin, publicAddresses } from './fetch.ts'

export interface SocketWay {
  /** Admits ws and every address: closed networks and tests. */
  readonly allowPrivateNetwork: boolean
  /** All addresses of a name. */
  readonly lookup?: ((hostname: string) => Promise<readonly string[]>) | undefined
  readonly headers?: Readonly<Record<string, string>>
  readonly signal: AbortSignal
}

/**
 * A WebSocket to an address that was checked, and without compression: a few bytes could stand for
 * gigabytes. It is still to open.
 * @throws FetchRefused or FetchFailed, where nobody can be asked
 */
export async function openSocket(url: URL, way: SocketWay): Promise<WebSocket> {
  const { allowPrivateNetwork, lookup, headers = {}, signal } = way
  const common = { perMessageDeflate: false }
  if (allowPrivateNetwork) return binary(new WebSocket(url, { ...common, headers }))
  // What stands in the headers is often a credential.
  if (url.protocol !== 'wss:') throw new FetchRefused(url.host, `not wss: ${url.protocol}`)
  const options = lookup === undefined ? {} : { lookup }
  const [address = ''] = await publicAddresses(url, signal, options).catch((error: unknown) => {
    if (error instanceof FetchRefused || signal.aborted) throw error
    throw new FetchFailed(url.host, 'its name leads nowhere')
  })
  const pinned = pin(url, address, new Headers(headers))
  return binary(new WebSocket(pinned.url, { ...common, headers: pinned.headers, tls: pinned.tls }))
}

function binary(socket: WebSocket): WebSocket {
  socket.binaryType = 'arraybuffer'
  return socket
}
