import type { ServiceAccess } from '../../src/indexer/service-calls.ts'
import { createGuardedFetch } from '../../src/remote/fetch.ts'

type Reply = (params: URLSearchParams, count: number) => Response | Promise<Response>

const fetch = createGuardedFetch({
  allowPrivateNetwork: true,
  timeoutMs: 60_000,
  responseBytesMax: 64 * 1024 * 1024,
})

/** How a service at `serviceUrl` is asked, by whatever credential. */
export function accessTo(serviceUrl: string, over: Partial<ServiceAccess> = {}): ServiceAccess {
  const signal = new AbortController().signal
  return { serviceUrl, fetch, authorization: async () => 'Bearer any', signal, ...over }
}

/** Somebody else's service, which may answer anything. */
export class ServiceDouble implements AsyncDisposable {
  /** By their last name; what is not there is answered 501. */
  readonly replies: Record<string, Reply>
  /** Headers of all requests, with the method they ask for. */
  readonly asked: (readonly [method: string, authorization: string | null])[] = []
  readonly #server: Bun.Server<undefined>

  constructor(replies: Record<string, Reply>) {
    this.replies = replies
    this.#server = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      idleTimeout: 0,
      fetch: async (request) => {
        const { pathname, searchParams } = new URL(request.url)
        const method = pathname.split('.').at(-1) ?? ''
        const count = this.asked.filter(([name]) => name === method).length
        this.asked.push([method, request.headers.get('authorization')])
        const reply = this.replies[method]
        return (await reply?.(searchParams, count)) ?? refusal(501, 'MethodNotImplemented')
      },
    })
  }

  get url(): string {
    return this.#server.url.origin
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}

export function refusal(status: number, error: string, headers: Record<string, string> = {}) {
  return Response.json({ error, message: error }, { status, headers })
}

export function carReply(car: Bun.BodyInit): Response {
  return new Response(car, { headers: { 'content-type': 'application/vnd.ipld.car' } })
}
