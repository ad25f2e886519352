import { Browser, redirectOf, type Visit } from './browser.ts'
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

/** What a person does on the account page of their PDS to end all sessions of apps. */
export async function withdrawConsent(account: Account): Promise<void> {
  const browser = new Browser()
  const page = new URL('/account', account.pdsUrl)
  await (await browser.visit(page)).body?.cancel()
  const provider = new Provider(browser, page)
  const { handle: username, password, did } = account
  await provider.post('sign-in', { locale: 'en', username, password, remember: true })
  const sessions: unknown = await provider.get('oauth-sessions', { did })
  if (!Array.isArray(sessions) || sessions.length === 0) throw new Error('no app has a session')
  for (const session of sessions) {
    const tokenId = textOf(fieldsOf({ session }, 'session'), 'tokenId')
    await provider.post('revoke-oauth-session', { did, tokenId })
  }
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
    const authorization = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }
    const answer = await this.#call(action, { body, headers: authorization })
    if (isFields(answer)) return answer
    throw new Error(`${action} answered ${JSON.stringify(answer)}`)
  }

  get(action: string, params: Readonly<Record<string, string>>): Promise<unknown> {
    return this.#call(`${action}?${new URLSearchParams(params).toString()}`, {})
  }

  async #call(action: string, visit: Visit): Promise<unknown> {
    const url = new URL(`/@atproto/oauth-provider/~api/${action}`, this.#page)
    const response = await this.#browser.visit(url, {
      ...visit,
      headers: {
        origin: this.#page.origin,
        referer: this.#page.href,
        'sec-fetch-dest': 'empty',
        'sec-fetch-mode': 'same-origin',
        'sec-fetch-site': 'same-origin',
        'x-csrf-token': this.#browser.cookie(this.#page.hostname, 'csrf-token') ?? '',
        ...visit.headers,
      },
    })
    const answer: unknown = await response.json()
    if (response.ok) return answer
    throw new Error(`${action} answered ${response.status} ${JSON.stringify(answer)}`)
  }
}
