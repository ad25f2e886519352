import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { Browser, Page } from 'playwright-core'

import { findChromium, launchChromium } from '../kit/chromium.ts'
import { type Account, Network } from '../kit/network.ts'
import { postCollection, privatePost, textsOf } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { failureOf } from '../kit/wait.ts'
import { WebApp } from '../kit/web-app.ts'
import type { PageOfApp, PlainAnswer } from '../kit/web-app-page.ts'
import { textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const executablePath = findChromium()
if (executablePath === undefined) {
  console.log('no Chromium is installed (STRATOS_TEST_CHROMIUM): its tests are skipped')
}

const nsids = {
  bindKey: 'zone.stratos.server.bindKey',
  unbindKey: 'zone.stratos.server.unbindKey',
  createRecord: 'zone.stratos.repo.createRecord',
  listRecords: 'zone.stratos.repo.listRecords',
} as const

describe.skipIf(executablePath === undefined)('an app in Chromium', () => {
  let network: Network
  let app: WebApp
  let stratos: Stratos
  let chromium: Browser
  let page: Page
  let alice: Account
  /** How Stratos answered the page, in order. */
  let answers: { readonly nsid: string; readonly status: number }[] = []

  beforeAll(async () => {
    network = await Network.start()
    app = await WebApp.start(network, `rpc:${nsids.bindKey}?aud=*`)
    const env = { STRATOS_ALLOWED_REDIRECT_ORIGINS: new URL(app.url).origin }
    stratos = await Stratos.start({ network, domains: ['engineering'], env })
    alice = await network.createAccount('alice')
    chromium = await launchChromium(executablePath)
    page = await chromium.newPage()
    page.on('response', (response) => {
      const { origin, pathname } = new URL(response.url())
      if (origin !== stratos.url || response.request().method() === 'OPTIONS') return
      answers.push({ nsid: pathname.replace('/xrpc/', ''), status: response.status() })
    })
  })
  afterAll(async () => {
    await chromium?.close()
    await stratos?.stop()
    await app?.[Symbol.asyncDispose]()
    await network?.stop()
  })

  test('is another site than the service, and begins with nobody', async () => {
    await page.goto(app.url)
    expect(await run('whoAmI')).toBeUndefined()
    expect(new URL(app.url).hostname).not.toBe(new URL(stratos.url).hostname)
  })

  test('signs a person in at their PDS, with a key that no script can carry away', async () => {
    // The page is gone before the library is done.
    await page.evaluate(`void app.signIn(${JSON.stringify(alice.handle)})`)
    await consent()
    expect(await run('whoAmI')).toBe(alice.did)
    expect(await run('isKeyExtractable')).toBeFalse()
  })

  test('can do nothing with its session alone, and keeps it', async () => {
    expect(await create('unbound')).toMatchObject({ status: 401, body: { error: 'InvalidToken' } })
    await page.reload()
    expect(await run('whoAmI')).toBe(alice.did)
  })

  test('binds no key of somebody who is not enrolled', async () => {
    expect(String(await failureOf(bindKey()))).toContain('NotEnrolled')
  })

  test('sends its person to enroll, and has them back', async () => {
    const enrollment = new URL('/oauth/authorize', stratos.url)
    enrollment.searchParams.set('handle', alice.handle)
    enrollment.searchParams.set('redirect_uri', app.url)
    await page.goto(enrollment.href)
    await consent()
    expect(new URL(page.url()).searchParams.get('stratos_enrolled')).toBe('true')
    expect(await run('whoAmI')).toBe(alice.did)
    const params = { did: alice.did }
    const { body } = await stratos.call('zone.stratos.enrollment.status', { params })
    expect(body).toMatchObject({ enrolled: true })
  })

  test('still needs its key bound when the person is enrolled', async () => {
    expect(await create('enrolled, unbound')).toMatchObject({ status: 401 })
  })

  test('binds its key with the nonce that the first answer brings', async () => {
    answers = []
    expect(Date.parse(await bindKey())).toBeGreaterThan(Date.now())
    expect(answers).toEqual([
      { nsid: nsids.bindKey, status: 401 },
      { nsid: nsids.bindKey, status: 200 },
    ])
  })

  test('then writes and reads by its session alone', async () => {
    const created = await create('from a browser')
    expect(created.status).toBe(200)
    expect(textOf(created.body, 'uri')).toStartWith(`at://${alice.did}/`)
    const listed = await list()
    expect(listed.status).toBe(200)
    expect(textsOf(listed.body)).toEqual(['from a browser'])
  })

  test('and does so after the page was loaded anew', async () => {
    await page.reload()
    expect((await create('after a reload')).status).toBe(200)
    expect(textsOf((await list()).body)).toContain('after a reload')
  })

  test('gives its key up, and is refused from then on', async () => {
    const jkt = await run('keyThumbprint')
    const unbound = await run('call', `${stratos.url}/xrpc/${nsids.unbindKey}`, { jkt })
    expect(unbound.status).toBe(200)
    expect(await create('afterwards')).toMatchObject({
      status: 401,
      body: { error: 'InvalidToken' },
    })
  })

  /** Has the page do something. */
  async function run<Name extends keyof PageOfApp>(
    name: Name,
    ...args: Parameters<PageOfApp[Name]>
  ): Promise<Result<Name>> {
    await page.waitForFunction('globalThis.app')
    return page.evaluate<Result<Name>>(`app.${name}(...${JSON.stringify(args)})`)
  }

  function bindKey(): Promise<string> {
    const { url, did } = stratos
    return run('bindKey', { url, did })
  }

  function create(text: string): Promise<PlainAnswer> {
    const record = privatePost(text, [stratos.boundary('engineering')])
    const input = { repo: alice.did, collection: postCollection, record }
    return run('call', `${stratos.url}/xrpc/${nsids.createRecord}`, input)
  }

  function list(): Promise<PlainAnswer> {
    const params = new URLSearchParams({ repo: alice.did, collection: postCollection })
    return run('call', `${stratos.url}/xrpc/${nsids.listRecords}?${params.toString()}`)
  }

  /** What the person does at their PDS, until that sends them back to the app. */
  async function consent(): Promise<void> {
    await page.waitForURL(`${network.pdsUrl}/**`)
    await page.fill('input[type=password]', alice.password)
    await page.click('button[type=submit]')
    await page.getByRole('button', { name: /authorize|accept|allow/i }).click()
    await page.waitForURL(`${app.url}**`)
  }
})

type Result<Name extends keyof PageOfApp> = Awaited<ReturnType<PageOfApp[Name]>>
