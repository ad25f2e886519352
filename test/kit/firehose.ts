import { decodeFirst } from '@atcute/cbor'

import type { Network } from './network.ts'
import { within } from './wait.ts'
import { fieldsOf, isFields, listOf, textOf, xrpc } from './xrpc.ts'

export interface PublicOp {
  readonly action: string
  /** `{collection}/{rkey}` */
  readonly path: string
}

const readMs = 20_000

/**
 * Everything that ever happened in an account's public repo, from the PDS's event stream. A record
 * that is there tells nothing of how often it was written; this does.
 */
export async function publicHistory(network: Network, did: string): Promise<PublicOp[]> {
  const params = { did }
  const { body } = await xrpc(network.pdsUrl, 'com.atproto.sync.getLatestCommit', { params })
  const lastRev = textOf(body, 'rev')
  const url = new URL('/xrpc/com.atproto.sync.subscribeRepos?cursor=0', network.pdsUrl)
  url.protocol = 'ws:'
  const socket = new WebSocket(url)
  socket.binaryType = 'arraybuffer'
  try {
    return await within(readMs, `commit ${lastRev} on the stream`, read(socket, did, lastRev))
  } finally {
    socket.close()
  }
}

function read(socket: WebSocket, did: string, lastRev: string): Promise<PublicOp[]> {
  const ops: PublicOp[] = []
  const done = Promise.withResolvers<PublicOp[]>()
  socket.addEventListener('error', () => {
    done.reject(new Error('the event stream broke'))
  })
  socket.addEventListener('message', (message: MessageEvent<unknown>) => {
    try {
      const body = commitIn(message.data)
      if (body?.['repo'] !== did) return
      for (const op of listOf(body, 'ops')) {
        ops.push({ action: textOf(op, 'action'), path: textOf(op, 'path') })
      }
      if (body['rev'] === lastRev) done.resolve(ops)
    } catch (error) {
      done.reject(error)
    }
  })
  return done.promise
}

/** A message is two values one after the other, a header and a body. */
function commitIn(data: unknown): Record<string, unknown> | undefined {
  if (!(data instanceof ArrayBuffer)) throw new Error('expected a binary message')
  const [header, rest] = decodeFirst(new Uint8Array(data))
  if (!isFields(header) || header['t'] !== '#commit') return undefined
  const [body] = decodeFirst(rest)
  return fieldsOf({ body }, 'body')
}
