import { rmSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import type { Web } from './browser.ts'
import { certificateFor } from './certificate.ts'
import { endWithUs } from './child.ts'
import type { WebSite } from './network.ts'
import { freePort } from '../../src/lib/free-port.ts'

/** A proxy that ends TLS in front of a service on loopback, under a name of the web. */
export class Front implements AsyncDisposable, Web {
  readonly origin: string
  readonly site: WebSite
  /** The origin that requests go on to. */
  target = ''
  readonly #cert: string
  readonly #server: Bun.Server<undefined>
  readonly #forget: () => void

  private constructor(made: {
    readonly name: string
    readonly folder: string
    readonly port: number
    readonly certificate: { readonly cert: string; readonly key: string }
  }) {
    const { name, folder, port, certificate } = made
    this.origin = `https://${name}:${port}`
    this.site = { name, certificatePath: join(folder, 'certificate.pem') }
    this.#cert = certificate.cert
    this.#forget = endWithUs(() => rmSync(folder, { recursive: true, force: true }))
    this.#server = Bun.serve({
      port,
      hostname: '127.0.0.1',
      tls: certificate,
      fetch: (request) => this.#pass(request),
    })
  }

  static async open(name: string): Promise<Front> {
    const folder = await mkdtemp(join(tmpdir(), 'stratos-front-'))
    const certificate = certificateFor(name)
    await writeFile(join(folder, 'certificate.pem'), certificate.cert)
    return new Front({ name, folder, port: await freePort(), certificate })
  }

  find(url: URL): ReturnType<Web['find']> {
    if (url.origin !== this.origin) return undefined
    const to = new URL(url)
    to.hostname = '127.0.0.1'
    const tls = { ca: this.#cert, serverName: this.site.name }
    return { url: to, headers: { host: url.host }, tls }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forget()
    await this.#server.stop(true)
    await rm(join(this.site.certificatePath, '..'), { recursive: true, force: true })
  }

  async #pass(request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url)
    const response = await fetch(`${this.target}${pathname}${search}`, {
      method: request.method,
      headers: request.headers,
      redirect: 'manual',
      decompress: false,
      ...(request.body === null ? {} : { body: await request.arrayBuffer() }),
    })
    return new Response(response.body, response)
  }
}
