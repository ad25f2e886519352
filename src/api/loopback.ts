import { type Config, isLoopbackHost } from '../config.ts'

/**
 * Where a browser has to go that came under another name of loopback: a PDS sends browsers of a
 * loopback client to 127.0.0.1 only, and cookies must be of there. Nothing beyond loopback.
 */
export function sameOnLoopback(
  url: URL,
  { publicUrl, port }: Pick<Config, 'publicUrl' | 'port'>,
): string | undefined {
  const own = new URL(publicUrl)
  if (!isLoopbackHost(own.hostname) || own.protocol === 'https:') return undefined
  if (url.hostname === '127.0.0.1') return undefined
  return `http://127.0.0.1:${own.port || port}${url.pathname}${url.search}`
}
