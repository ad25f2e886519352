import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type {
  Browser as Chromium,
  BrowserContext,
  BrowserContextOptions,
  Page,
} from 'playwright-core'

import { Browser, redirectOf } from '../kit/browser.ts'
import { findChromium, launchChromium } from '../kit/chromium.ts'
import { decide } from '../kit/consent.ts'
import { beginEnrollment, enroll } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { enrollmentCollection } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const executablePath = findChromium()
if (executablePath === undefined) {
  console.log('no Chromium is installed (STRATOS_TEST_CHROMIUM): its tests are skipped')
}

let network: Network
let stratos: Stratos

beforeAll(async () => {
  network = await Network.start()
  const env = {
    STRATOS_OAUTH_CLIENT_NAME: 'Riverside',
    STRATOS_OPERATOR_CONTACT: `mail${'l'.repeat(60)}@example.com`,
  }
  // Long words are what makes a narrow page too wide.
  const domains = ['road', 'g'.repeat(60)]
  stratos = await Stratos.start({ network, domains, env })
})
afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

describe('a callback that succeeds signs in', () => {
  const session = /^stratos-session=[\w-]{43}; Max-Age=86400; Path=\/; HttpOnly; SameSite=Lax$/
  const used = 'stratos-signin=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax'

  test('a browser, which then shows the page of who it is', async () => {
    const account = await network.createAccount('bruno')
    const browser = new Browser()
    const response = await enroll(stratos, account, { browser })
    expect(response.headers.getSetCookie()).toEqual([used, expect.stringMatching(session)])

    const page = await browser.visit(`http://127.0.0.1:${stratos.port}/`)
    expect(await page.text()).toContain(account.did)

    const start = await beginEnrollment(stratos, browser, { handle: account.did })
    const authorizeUrl = redirectOf(start, stratos.url)
    if (authorizeUrl === undefined) throw new Error(`no redirect: ${start.status}`)
    const callback = await decide(browser, authorizeUrl, { account, decision: 'approve' })
    const returned = await browser.visit(callback, { headers: { accept: 'text/html' } })
    expect(returned.status).toBe(303)
    expect(returned.headers.get('location')).toBe('/')
    expect(returned.headers.getSetCookie()).toEqual([used, expect.stringMatching(session)])
  })

  test('a second person in place of the first', async () => {
    const browser = new Browser()
    await enroll(stratos, await network.createAccount('wanda'), { browser })
    const cookie = browser.cookieHeader('127.0.0.1')
    await enroll(stratos, await network.createAccount('walter'), { browser })
    const status = `http://127.0.0.1:${stratos.port}/oauth/status`
    const own = await browser.visit(status, { headers: { 'sec-fetch-site': 'none' } })
    expect(await own.json()).toMatchObject({ handle: 'walter.test', session: 'present' })
    expect((await fetch(status, { headers: { cookie } })).status).toBe(401)
  })

  test('and one that fails signs in nobody', async () => {
    const browser = new Browser()
    const account = await network.createAccount('renate')
    const response = await enroll(stratos, account, { browser, decision: 'reject' })
    expect(response.status).toBe(400)
    expect(browser.cookie('127.0.0.1', 'stratos-session')).toBeUndefined()
  })
})

describe.skipIf(executablePath === undefined)('in Chromium a person', () => {
  let chromium: Chromium
  let context: BrowserContext
  let page: Page
  let account: Account
  /** What our own pages complained about: the policy of their content, errors in the script. */
  const complaints: string[] = []

  beforeAll(async () => {
    account = await network.createAccount('rosalind')
    chromium = await launchChromium(executablePath)
    context = await chromium.newContext({ viewport: { width: 1000, height: 800 } })
    page = await context.newPage()
    page.on('pageerror', (error) => complaints.push(error.message))
    page.on('console', (message) => {
      const { url } = message.location()
      const isOurs = stratos.hosts.some((host) => url.startsWith(`http://${host}/`))
      if (isOurs && ['error', 'warning'].includes(message.type())) complaints.push(message.text())
    })
  })
  afterAll(async () => {
    await chromium?.close()
  })

  test('reads what becomes public before they sign in', async () => {
    await page.goto(stratos.url)
    expect(await page.title()).toBe('Riverside')
    const text = await page.innerText('main')
    expect(text).toContain('What becomes public, and what does not')
    expect(text).toContain('That you are a member.')
    expect(text).toContain('road')
  })

  test('signs in with their handle, however they write it, and consents at their PDS', async () => {
    await page.getByLabel('Your handle or DID').fill(` @${account.handle} `)
    const asked = page.waitForRequest(/\/oauth\/authorize\?/)
    await page.getByRole('button', { name: 'Continue to your PDS' }).click()
    expect(new URL((await asked).url()).searchParams.get('handle')).toBe(account.handle)
    await page.waitForURL(`${network.pdsUrl}/**`)
    await page.fill('input[type=password]', account.password)
    await page.click('button[type=submit]')
    await page.getByRole('button', { name: /authorize|accept|allow/i }).click()
    await page.waitForURL(`http://127.0.0.1:${stratos.port}/`)
  })

  test('sees who they are and where they stand', async () => {
    expect(await page.innerText('h1')).toBe('Your membership')
    const text = await page.innerText('body')
    expect(text).toContain(`@${account.handle}`)
    expect(text).toContain(account.did)
    expect(await page.locator('.names li').allInnerTexts()).toEqual(['g'.repeat(60), 'road'])
    expect(text).toContain('did:key:z')
    expect(text).not.toContain('is lost')
    // The session is out of reach of scripts.
    expect(await page.evaluate('document.cookie')).toBe('')
  })

  test('finds everything on a narrow screen, and with large type, without scrolling sideways', async () => {
    for (const width of [320, 500]) {
      await page.setViewportSize({ width, height: 640 })
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width)
    }
    await page.setViewportSize({ width: 1000, height: 800 })
  })

  test('is asked once more before they leave, and may stay', async () => {
    const dialog = page.getByRole('dialog')
    const leave = page.getByRole('button', { name: 'Leave…' })
    await leave.press('Enter')
    await dialog.waitFor()
    // Whoever presses Enter once too often stays.
    expect(await page.evaluate('document.activeElement.textContent')).toBe('Stay')
    await page.keyboard.press('Enter')
    await dialog.waitFor({ state: 'hidden' })
    await leave.click()
    await page.keyboard.press('Escape')
    await dialog.waitFor({ state: 'hidden' })
    expect(await isEnrolled(account)).toBe(true)
  })

  test('hears when leaving did not work, and may try again or stay', async () => {
    const member = await openAs(await network.createAccount('otto'))
    const dialog = member.getByRole('dialog')
    await member.getByRole('button', { name: 'Leave…' }).click()
    await member.context().setOffline(true)
    await dialog.getByRole('button', { name: 'Leave and delete' }).click()
    await dialog.getByRole('alert').waitFor()
    expect(await dialog.getByRole('alert').innerText()).toContain('did not answer')
    expect(await dialog.getByRole('button', { name: 'Leave and delete' }).isEnabled()).toBe(true)
    await dialog.getByRole('button', { name: 'Stay' }).click()
    expect(await member.innerText('h1')).toBe('Your membership')
    await member.context().close()
  })

  test('leaves, and is told so, and is a stranger from then on', async () => {
    const otilia = await network.createAccount('otilia')
    const member = await openAs(otilia)
    await member.getByRole('button', { name: 'Leave…' }).click()
    await member.getByRole('dialog').getByRole('button', { name: 'Leave and delete' }).click()
    await member.getByRole('heading', { name: 'You have left' }).waitFor()
    expect(await isEnrolled(otilia)).toBe(false)
    const look = async () => (await network.listRecords(otilia.did, enrollmentCollection)).length
    await eventually('clean PDS', async () => ((await look()) === 0 ? true : undefined))
    await member.getByRole('link', { name: 'Back to the start' }).click()
    await member.getByLabel('Your handle or DID').waitFor()
    await member.context().close()
  })

  test('reads all of it without JavaScript, and what takes it', async () => {
    const member = await openAs(await network.createAccount('ottilie'), {
      javaScriptEnabled: false,
    })
    expect(await member.innerText('h1')).toBe('Your membership')
    expect(await member.getByRole('button').allInnerTexts()).toEqual([])
    expect(await member.innerText('body')).toContain('Leaving needs JavaScript')
    await member.context().close()
  })

  test('signs out, and is a stranger to that browser', async () => {
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByLabel('Your handle or DID').waitFor()
    expect(await context.cookies(`http://127.0.0.1:${stratos.port}/`)).toEqual([])
    expect(await isEnrolled(account)).toBe(true)
  })

  test('meets no complaint of the browser on our pages', () => {
    expect(complaints).toEqual([])
  })

  /** The page of somebody who enrolled elsewhere, in a browser of their own. */
  async function openAs(member: Account, options: BrowserContextOptions = {}): Promise<Page> {
    const browser = new Browser()
    await enroll(stratos, member, { browser })
    const name = 'stratos-session'
    const value = browser.cookie('127.0.0.1', name) ?? ''
    const own = await chromium.newContext(options)
    await own.addCookies([{ name, value, domain: '127.0.0.1', path: '/' }])
    const page = await own.newPage()
    await page.goto(stratos.url)
    return page
  }
})

async function isEnrolled({ did }: Account): Promise<unknown> {
  const answer = await stratos.call('zone.stratos.enrollment.status', { params: { did } })
  return answer.body['enrolled']
}
