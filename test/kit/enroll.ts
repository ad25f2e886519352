import { Browser, redirectOf } from './browser.ts'
import { decide, type Decision } from './consent.ts'
import type { Account } from './network.ts'
import type { Stratos } from './stratos.ts'

export interface Enrolling {
  readonly browser?: Browser
  readonly decision?: Decision
  readonly redirectUri?: string
}

/**
 * Walks through the whole enrollment as a person with a browser does.
 * @returns the service's last answer: of the callback, or of the step that refused
 */
export async function enroll(
  stratos: Stratos,
  account: Account,
  { browser = new Browser(), decision = 'approve', redirectUri }: Enrolling = {},
): Promise<Response> {
  const start = await beginEnrollment(stratos, browser, { handle: account.did, redirectUri })
  const authorizeUrl = redirectOf(start, stratos.publicUrl)
  if (authorizeUrl === undefined) return start
  return browser.visit(await decide(browser, authorizeUrl, { account, decision }))
}

/**
 * The first half: from the link on our page to where the service sends the browser next. That is
 * the PDS's authorization page unless it refuses.
 */
export function beginEnrollment(
  stratos: Stratos,
  browser: Browser,
  { handle, redirectUri }: { handle: string; redirectUri?: string | undefined },
): Promise<Response> {
  const url = new URL('/oauth/authorize', stratos.publicUrl)
  url.searchParams.set('handle', handle)
  if (redirectUri !== undefined) url.searchParams.set('redirect_uri', redirectUri)
  return browser.visitWithin(stratos.hosts, url)
}

/** `enroll` for whoever only needs an enrolled person. */
export async function enrolled(
  stratos: Stratos,
  account: Account,
  browser = new Browser(),
): Promise<void> {
  const response = await enroll(stratos, account, { browser })
  const text = await response.text()
  if (response.status !== 200) throw new Error(`enrollment: ${response.status} ${text}`)
}
