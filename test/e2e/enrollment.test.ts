import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { Browser, redirectOf } from '../kit/browser.ts'
import { decide } from '../kit/consent.ts'
import { beginEnrollment, enroll, type Enrolling } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { enrollmentCollection } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

let network: Network
let open: Stratos
let accounts = 0

beforeAll(async () => {
  network = await Network.start()
  open = await Stratos.start({ network, domains: ['engineering'] })
})
afterAll(async () => {
  await open?.stop()
  await network?.stop()
})
afterEach(() => {
  expect(open.log).not.toContain('InternalServerError')
})

describe('a callback enrolls nobody', () => {
  test('without the cookie of the browser that began; that browser still can', async () => {
    const account = await someone()
    const browser = new Browser()
    const callback = await approvedCallback(account, browser)
    await expectRefusal(await new Browser().visit(callback), 400)
    await expectNotEnrolled(open, account)

    expect((await browser.visit(callback)).status).toBe(200)
    await expectEnrolled(open, account)
  })

  test('with the cookie of another enrollment', async () => {
    const account = await someone()
    const callback = await approvedCallback(account, new Browser())
    const stranger = new Browser()
    await authorizePage(await someone(), stranger)
    await expectRefusal(await stranger.visit(callback), 400)
    await expectNotEnrolled(open, account)
  })

  test('a second time', async () => {
    const account = await someone()
    const browser = new Browser()
    const callback = await approvedCallback(account, browser)
    const cookie = browser.cookieHeader(callback.hostname)
    expect((await browser.visit(callback)).status).toBe(200)
    await expectRefusal(await browser.visit(callback), 400)
    // Neither does the cookie of the first time make it a first time again.
    await expectRefusal(await new Browser().visit(callback, { headers: { cookie } }), 400)
  })

  test('with a state or code that the service did not give out', async () => {
    for (const name of ['state', 'code']) {
      const account = await someone()
      const browser = new Browser()
      const callback = await approvedCallback(account, browser)
      callback.searchParams.set(name, 'forged-0123456789abcdef')
      await expectRefusal(await browser.visit(callback), 400)
      await expectNotEnrolled(open, account)
    }
  })

  test('with another issuer, or none', async () => {
    for (const issuer of ['https://issuer.example', network.plcUrl, undefined]) {
      const account = await someone()
      const browser = new Browser()
      const callback = await approvedCallback(account, browser)
      if (issuer === undefined) callback.searchParams.delete('iss')
      else callback.searchParams.set('iss', issuer)
      await expectRefusal(await browser.visit(callback), 400)
      await expectNotEnrolled(open, account)
    }
  })

  test('without any parameters', async () => {
    await expectRefusal(await new Browser().visit(`${open.url}/oauth/callback`), 400)
  })
})

describe('an enrollment is refused', () => {
  test('when the person refuses at the PDS', async () => {
    const account = await someone()
    const response = await enroll(open, account, { decision: 'reject' })
    expect(await expectRefusal(response, 400)).toMatchObject({ error: 'AccessDenied' })
    await expectNotEnrolled(open, account)
  })

  test('when the answer would go to a foreign origin', async () => {
    const account = await someone()
    const foreign = ['https://app.example/done', 'http://127.0.0.1:1/', 'javascript:alert(1)', '/x']
    for (const redirectUri of foreign) {
      await expectRefusal(await begin(account, { redirectUri }), 400)
    }
  })

  test('when the handle is missing, malformed or nobody’s', async () => {
    for (const handle of ['', 'not a handle', 'did:plc:aaaaaaaaaaaaaaaaaaaaaaaa', 'nobody.test']) {
      const response = await beginEnrollment(open, new Browser(), { handle })
      await expectRefusal(response, undefined)
    }
  })

  test('when the person is not on the allow list', async () => {
    const listed = await someone()
    const account = await someone()
    const env = { STRATOS_ENROLLMENT_MODE: 'allowlist', STRATOS_ALLOWED_DIDS: listed.did }
    await using stratos = await Stratos.start({ network, domains: ['engineering'], env })
    expect(await expectRefusal(await enroll(stratos, account), 403)).toMatchObject({
      error: 'EnrollmentDenied',
      reason: 'NotInAllowlist',
    })
    await expectNotEnrolled(stratos, account)

    expect((await enroll(stratos, listed)).status).toBe(200)
    await expectEnrolled(stratos, listed)
  })
})

test('the allow list admits everybody of a PDS', async () => {
  const elsewhere = { STRATOS_ALLOWED_PDS_ENDPOINTS: 'https://pds.example' }
  const here = { STRATOS_ALLOWED_PDS_ENDPOINTS: network.pdsUrl }
  const account = await someone()
  for (const [list, status] of [[elsewhere, 403] as const, [here, 200] as const]) {
    const env = { STRATOS_ENROLLMENT_MODE: 'allowlist', ...list }
    await using stratos = await Stratos.start({ network, domains: ['engineering'], env })
    expect((await enroll(stratos, account)).status).toBe(status)
  }
})

test('an enrolled person gets all boundaries, or those named for new people, and a public record', async () => {
  const all = await someone()
  expect(await (await enroll(open, all)).json()).toMatchObject({
    success: true,
    did: all.did,
    enrolled: true,
  })
  const status = await open.callAs(all, 'zone.stratos.enrollment.status', {
    params: { did: all.did },
  })
  expect(status.body).toMatchObject({
    did: all.did,
    enrolled: true,
    active: true,
    boundaries: [{ value: open.boundary('engineering') }],
  })
  await eventually('enrollment record', async () => {
    const [record] = await network.listRecords(all.did, enrollmentCollection)
    return record
  })

  const env = { STRATOS_AUTO_ENROLL_DOMAINS: '' }
  await using stratos = await Stratos.start({ network, domains: ['engineering'], env })
  const none = await someone()
  expect((await enroll(stratos, none)).status).toBe(200)
  const answer = await stratos.callAs(none, 'zone.stratos.enrollment.status', {
    params: { did: none.did },
  })
  expect(answer.body).toMatchObject({ enrolled: true, boundaries: [] })
})

test('enrolling again keeps the signing key, and a redirect to our own page says that it worked', async () => {
  const account = await someone()
  expect((await enroll(open, account)).status).toBe(200)
  const signingKey = (await statusOf(open, account))['signingKey']
  const response = await enroll(open, account, { redirectUri: `${open.url}/` })
  const target = redirectOf(response, open.url)
  expect(target?.searchParams.get('stratos_enrolled')).toBe('true')
  expect(await statusOf(open, account)).toMatchObject({ enrolled: true, signingKey })
})

test('an enrollment by handle is the enrollment of that account', async () => {
  const account = await someone()
  const browser = new Browser()
  const page = await beginEnrollment(open, browser, { handle: account.handle })
  const authorizeUrl = redirectOf(page, open.url)
  if (authorizeUrl === undefined) throw new Error(`no redirect: ${page.status}`)
  const callback = await decide(browser, authorizeUrl, { account, decision: 'approve' })
  expect(await (await browser.visit(callback)).json()).toMatchObject({ did: account.did })
})

test('who signs in as somebody else than they named enrolls only as who they are', async () => {
  const [named, actual] = [await someone(), await someone()]
  const browser = new Browser()
  const authorizeUrl = await authorizePage(named, browser)
  const callback = await decide(browser, authorizeUrl, { account: actual, decision: 'approve' })
  const response = await browser.visit(callback)
  expect(response.status).toBeLessThan(500)
  await expectNotEnrolled(open, named)
})

async function someone(): Promise<Account> {
  accounts += 1
  return network.createAccount(`person${accounts}`)
}

function begin(account: Account, { redirectUri }: Enrolling): Promise<Response> {
  return beginEnrollment(open, new Browser(), { handle: account.did, redirectUri })
}

async function authorizePage(account: Account, browser: Browser): Promise<URL> {
  const response = await beginEnrollment(open, browser, { handle: account.did })
  const url = redirectOf(response, open.url)
  if (url === undefined) throw new Error(`no redirect: ${response.status} ${await response.text()}`)
  expect(url.origin).toBe(network.pdsUrl)
  return url
}

async function approvedCallback(account: Account, browser: Browser): Promise<URL> {
  const authorizeUrl = await authorizePage(account, browser)
  return decide(browser, authorizeUrl, { account, decision: 'approve' })
}

/** A 4xx with a named error; never a fault of ours. @param status any 4xx when not given */
async function expectRefusal(response: Response, status: number | undefined) {
  expect(response.status).toBeWithin(400, 500)
  if (status !== undefined) expect(response.status).toBe(status)
  const body = fieldsOf({ body: await response.json() }, 'body')
  expect(body['error']).toBeString()
  return body
}

async function statusOf(stratos: Stratos, account: Account) {
  const params = { did: account.did }
  return (await stratos.call('zone.stratos.enrollment.status', { params })).body
}

async function expectEnrolled(stratos: Stratos, account: Account): Promise<void> {
  expect(await statusOf(stratos, account)).toMatchObject({ did: account.did, enrolled: true })
}

async function expectNotEnrolled(stratos: Stratos, account: Account): Promise<void> {
  expect(await statusOf(stratos, account)).toEqual({ did: account.did, enrolled: false })
  expect(await network.listRecords(account.did, enrollmentCollection)).toEqual([])
}
