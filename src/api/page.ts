import { assetPaths } from './assets.ts'
import { type Html, html } from './html.ts'
import { ownHeaders, privateHeaders } from './reply.ts'

interface Page {
  readonly title: string
  readonly main: Html
  /** What stands above every page of a service. */
  readonly header?: Html | undefined
  readonly footer?: Html | undefined
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
}

/** A page with one message, for people whose browser was sent here. */
export function messagePage(
  title: string,
  message: string,
  options: { readonly status: number; readonly headers?: Readonly<Record<string, string>> },
): Response {
  const main = html`<div class="card">
    <h1>${title}</h1>
    <p class="lead">${sentence(message)}</p>
    <p><a href="/">Back to the start</a></p>
  </div>`
  return page({ title, main, ...options })
}

/** What stands in an error is part of a longer text; here it stands alone. */
function sentence(text: string): string {
  const start = text.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase())
  return /[.!?]$/.test(start) ? start : `${start}.`
}

export function wantsPage(request: Request): boolean {
  return (request.headers.get('accept') ?? '').includes('text/html')
}

export function page({ title, main, header, footer, status, headers }: Page): Response {
  const body = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>${title}</title>
        <link rel="icon" href="${assetPaths.icon}" />
        <link rel="stylesheet" href="${assetPaths.style}" />
        <script type="module" src="${assetPaths.script}"></script>
      </head>
      <body>
        ${header}
        <main>${main}</main>
        ${footer}
      </body>
    </html> `
  return new Response(body.toString(), {
    status: status ?? 200,
    headers: { ...pageHeaders, ...headers },
  })
}

/** Forms may lead anywhere: a sign-in goes on to a PDS, and browsers would count that as a target. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join('; ')

const pageHeaders = {
  ...privateHeaders,
  ...ownHeaders,
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': policy,
  'cross-origin-opener-policy': 'same-origin',
} as const
