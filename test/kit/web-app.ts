import { fileURLToPath } from 'node:url'

import type { Network } from './network.ts'
import { freePort } from '../../src/lib/free-port.ts'

/** A web app of somebody else, without a server of its own but for its files. */
export class WebApp implements AsyncDisposable {
  /** Its one page, to which people come back from their PDS as well. */
  readonly url: string
  readonly #server: Bun.Server<undefined>

  private constructor(port: number, script: string, settings: Settings) {
    this.url = `http://127.0.0.1:${port}/`
    const clientId = new URL('http://localhost')
    clientId.searchParams.set('redirect_uri', this.url)
    clientId.searchParams.set('scope', settings.scope)
    this.#server = Bun.serve({
      port,
      hostname: '127.0.0.1',
      routes: {
        '/': new Response(page, { headers: { 'content-type': 'text/html; charset=utf-8' } }),
        '/page.js': new Response(script, { headers: { 'content-type': 'text/javascript' } }),
        '/settings.json': Response.json({
          // As the specification spells it, without a path.
          clientId: `http://localhost${clientId.search}`,
          handleResolver: settings.pdsUrl,
          plcDirectoryUrl: settings.plcUrl,
        }),
      },
      fetch: () => new Response(null, { status: 404 }),
    })
  }

  /** @param scope beside `atproto` */
  static async start({ pdsUrl, plcUrl }: Network, scope: string): Promise<WebApp> {
    const entry = fileURLToPath(new URL('web-app-page.ts', import.meta.url))
    const { outputs } = await Bun.build({ entrypoints: [entry], target: 'browser', format: 'esm' })
    const [script] = outputs
    if (script === undefined) throw new Error('the page of the app has no script')
    const settings = { scope: `atproto ${scope}`, pdsUrl, plcUrl }
    return new WebApp(await freePort(), await script.text(), settings)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true)
  }
}

interface Settings {
  readonly scope: string
  readonly pdsUrl: string
  readonly plcUrl: string
}

const page = `<!doctype html>
<html lang="en">
<title>An app</title>
<script type="module" src="/page.js"></script>
`
