import { type Browser, redirectOf } from './browser.ts'
import type { Account } from './network.ts'
import { fieldsOf, isFields, textOf } from './xrpc.ts'

export type Decision = 'approve' | 'reject'

/**
 * What a person does on the PDS's authorization page, through the requests that page makes: sign
 * in and approve, or reject.
 * @returns where the PDS sends the browser: the client's callback
 */
export async function decide(
  browser: Browser,
  authorizeUrl: URL,
  { account, decision }: { account: Account; decision: Decision },
): Promise<URL> {
  const page = await browser.visit(authorizeUrl)
  if (page.status !== 200) {
    throw new Error(`the authorization page answered ${page.status}: ${await page.text()}`)
  }
  await page.body?.cancel()

  const provider = new Provider(browser, authorizeUrl)
  const answer =
    decision === 'reject' ? await provider.post('reject', {}) : await approve(provider, account)
  const leaving = new URL(textOf(answer, 'url'))
  const response = await browser.visit(leaving, {
    headers: { referer: authorizeUrl.href, 'sec-fetch-site': 'same-origin' },
  })
  const callback = redirectOf(response, leaving)
  if (callback === undefined) throw new Error(`no redirect to the client: ${response.status}`)
  return callback
}

async function approve(provider: Provider, account: Account) {
  const signIn = await provider.post('sign-in', {
    locale: 'en',
    username: account.handle,
    password: account.password,
    remember: false,
  })
  const did = textOf(fieldsOf(signIn, 'account'), 'did')
  return provider.post('consent', { did }, textOf(signIn, 'ephemeralToken'))
}

/** The private API behind the provider's own pages. */
class Provider {
  readonly #browser: Browser
  readonly #page: URL

  constructor(browser: Browser, page: URL) {
    this.#browser = browser
    this.#page = page
  }

  async post(action: string, body: unknown, bearer?: string) {
    const response = await this.#browser.visit(
      new URL(`/@atproto/oauth-provider/~api/${action}`, this.#page),
      {
        body,
        headers: {
          origin: this.#page.origin,
          referer: this.#page.href,
          'sec-fetch-mode': 'same-origin',
          'sec-fetch-site': 'same-origin',
          'x-csrf-token': this.#browser.cookie(this.#page.hostname, 'csrf-token') ?? '',
          ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
        },
      },
    )
    const answer: unknown = await response.json()
    if (response.ok && isFields(answer)) return answer
    throw new Error(`${action} answered ${response.status} ${JSON.stringify(answer)}`)
  }
}
