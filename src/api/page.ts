import type { Config } from '../config.ts'
import { privateHeaders } from './reply.ts'

/** The page for people: what this is, what becomes public, and the way in. */
export function welcomePage(
  config: Pick<Config, 'clientName' | 'domains' | 'enrollmentMode' | 'operatorContact'>,
): Response {
  const { clientName, domains, enrollmentMode, operatorContact } = config
  const admission =
    enrollmentMode === 'open'
      ? 'Everybody with an AT Protocol account may enroll.'
      : 'Accounts on the list of this service may enroll.'
  const contact = operatorContact === '' ? '' : `<p>Operator: ${escape(operatorContact)}</p>`
  return page(clientName, {
    status: 200,
    body: `
      <p>Here you write records that only people of the same community can read. Your account
        stays where it is.</p>
      <form action="/oauth/authorize" method="get">
        <label for="handle">Your handle or DID</label>
        <input id="handle" name="handle" required autocapitalize="none" autocorrect="off"
          spellcheck="false" placeholder="you.example.com">
        <button>Sign in and enroll</button>
      </form>
      <p>${admission} Communities: ${domains.map(escape).join(', ')}.</p>
      <h2>What becomes public</h2>
      <ul>
        <li>that you are enrolled here, in which communities, since when, with which key: a record
          in your public repository says so;</li>
        <li>that you wrote a private record, when, under which key: a stub in your public repository
          says so, without its content and its communities.</li>
      </ul>
      <p>Your own PDS acts in your name: calls that you send through it are readable to it.</p>
      ${contact}`,
  })
}

/** A page with one message, for people whose browser was sent here. */
export function messagePage(
  title: string,
  message: string,
  options: { readonly status: number; readonly headers?: Readonly<Record<string, string>> },
): Response {
  const body = `<p>${escape(message)}</p><p><a href="/">Back to the start</a></p>`
  return page(title, { ...options, body })
}

export function wantsPage(request: Request): boolean {
  return (request.headers.get('accept') ?? '').includes('text/html')
}

function page(
  title: string,
  content: {
    readonly status: number
    readonly body: string
    readonly headers?: Readonly<Record<string, string>>
  },
): Response {
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  input, button { font: inherit; padding: .4rem .6rem; margin: .3rem 0; display: block }
  input { width: 100%; box-sizing: border-box }
</style>
</head>
<body>
<h1>${escape(title)}</h1>
${content.body}
</body>
</html>
`
  return new Response(html, {
    status: content.status,
    headers: { ...pageHeaders, ...content.headers },
  })
}

const pageHeaders = {
  ...privateHeaders,
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy':
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const

function escape(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
}
