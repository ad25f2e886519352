import { describe, expect, test } from 'bun:test'
import { assetPaths, assets } from '../../src/api/assets.ts'
import { html } from '../../src/api/html.ts'
import { messagePage } from '../../src/api/page.ts'
import type { PageConfig } from '../../src/api/pages/frame.ts'
import { memberPage } from '../../src/api/pages/member.ts'
import { strangerPage, welcomePage } from '../../src/api/pages/welcome.ts'
import { parseDid } from '../../src/atproto/syntax.ts'

const hostile = `"><script>alert(1)</script><img src=x onerror='alert(1)'>&amp;\${x}`
const did = parseDid('did:plc:alicealicealicealicealic')

const config: PageConfig = {
  clientName: 'Riverside Cycling',
  serviceDid: 'did:web:stratos.example.com',
  domains: ['road', 'gravel'],
  boundaries: ['did:web:stratos.example.com/road', 'did:web:stratos.example.com/gravel'],
  newBoundaries: ['did:web:stratos.example.com/road', 'did:web:stratos.example.com/gravel'],
  enrollmentMode: 'open',
  operatorContact: '',
  stubs: 'full',
  publishBoundaries: true,
  appViews: new Map(),
}

const membership = {
  did,
  pdsEndpoint: 'https://pds.example.com',
  signingKey: 'did:key:zDnaexample',
  rkey: 'did:web:stratos.example.com',
  enrolledAt: '2026-11-23T23:59:59.000Z',
  active: true,
  scope: 'atproto',
  boundaries: ['did:web:stratos.example.com/gravel'],
}
const alice = { did, handle: undefined, session: 'present', missingScopes: [], membership } as const

describe('a page with hostile values', () => {
  const bad = {
    ...config,
    clientName: hostile,
    serviceDid: hostile,
    domains: [hostile],
    operatorContact: hostile,
    clientTosUri: hostile,
    clientPolicyUri: `javascript:alert(1)`,
  }
  const member = {
    ...alice,
    missingScopes: [hostile],
    membership: {
      ...membership,
      pdsEndpoint: hostile,
      signingKey: hostile,
      enrolledAt: hostile,
      boundaries: [hostile],
    },
  }
  test.each<[string, () => Response]>([
    ['of strangers', () => welcomePage(bad)],
    ['of who is not enrolled', () => strangerPage({ ...alice, membership: undefined }, bad)],
    ['of members', () => memberPage(member, bad)],
    ['of who lost the connection', () => memberPage({ ...member, session: 'lost' }, bad)],
    ['with a message', () => messagePage(hostile, hostile, { status: 400 })],
  ])('%s shows them as text', async (_, page) => {
    const text = await page().text()
    expect(text).toContain('&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;')
    expect(await elementsOf(text)).toEqual({ scripts: [assetPaths.script], foreign: [] })
  })

  test.each([
    ['mailto', 'mail@example.com', 'href="mailto:mail@example.com"'],
    ['a page', 'https://example.com/ask?a=b&c=d', 'href="https://example.com/ask?a=b&amp;c=d"'],
  ])('but an operator’s contact that is %s is a link', async (_, operatorContact, link) => {
    expect(await textOf(welcomePage({ ...config, operatorContact }))).toContain(link)
  })

  test.each(['javascript:alert(1)', 'data:text/html,x', 'a@b?cc=c@d', 'call 555 0100', '@someone'])(
    'the contact %j is no link',
    async (operatorContact) => {
      const text = await textOf(welcomePage({ ...config, operatorContact }))
      expect(text).toContain(`Operator: ${operatorContact}`)
      expect(text).not.toContain('href="javascript')
      expect(text.match(/<footer>.*<a /s)).toBeNull()
    },
  )
})

test('every page forbids what it does not need', async () => {
  for (const page of [
    welcomePage(config),
    memberPage(alice, config),
    messagePage('title', 'message', { status: 400 }),
  ]) {
    const policy = page.headers.get('content-security-policy') ?? ''
    expect(policy).toContain(`default-src 'none'`)
    expect(policy).toContain(`script-src 'self'`)
    expect(policy).toContain(`frame-ancestors 'none'`)
    expect(policy).not.toContain('unsafe')
    expect(page.headers.get('cache-control')).toBe('no-store')
    expect(page.headers.get('referrer-policy')).toBe('no-referrer')
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
  }
})

describe('what becomes public', () => {
  const stub = 'leaves a stub'
  const listed = 'the communities you are in'
  test('names stubs and communities as long as they are published', async () => {
    for (const page of [welcomePage(config), memberPage(alice, config)]) {
      const text = await textOf(page)
      expect(text).toContain(stub)
      expect(text).toContain(listed)
      expect(text).toContain('Your own PDS.')
      expect(text).not.toContain('Which communities you are in.')
    }
  })

  test('says that there are no stubs where there are none', async () => {
    for (const page of [
      welcomePage({ ...config, stubs: 'off' }),
      memberPage({ ...alice, session: 'lost' }, { ...config, stubs: 'off' }),
    ]) {
      const text = await textOf(page)
      expect(text).toContain('This service puts nothing about single records')
      expect(text).not.toMatch(/\bstubs?\b/)
    }
  })

  test('says that apps read, where the operator lets them', async () => {
    const appViews = new Map([[did, 'all' as const]])
    const words = 'apps that the operator lets read'
    expect(await textOf(welcomePage({ ...config, appViews }))).toContain(words)
    expect(await textOf(welcomePage(config))).not.toContain(words)
  })

  test('says that communities are not published where they are not', async () => {
    const text = await textOf(welcomePage({ ...config, publishBoundaries: false }))
    expect(text).not.toContain(listed)
    expect(text).toContain('Which communities you are in.')
  })
})

describe('strangers read', () => {
  test('who may enroll', async () => {
    expect(await textOf(welcomePage(config))).toContain('Everybody with an AT Protocol account')
    const listed = await textOf(welcomePage({ ...config, enrollmentMode: 'allowlist' }))
    expect(listed).toContain('Accounts that the operator of this service admits')
  })

  test('the terms, where there are any', async () => {
    const clientTosUri = 'https://example.com/terms'
    const text = await textOf(welcomePage({ ...config, clientTosUri, clientPolicyUri: '' }))
    expect(text).toContain(`<a href="${clientTosUri}">Terms of service</a>`)
    expect(text).not.toContain('Privacy policy')
  })
})

describe('members read', () => {
  test('communities by bare name, and the day they enrolled', async () => {
    const text = await textOf(memberPage(alice, config))
    expect(text).toContain('<li>gravel</li>')
    expect(text).not.toContain('did:web:stratos.example.com/')
    expect(text).toContain('>23 November 2026</time>')
  })

  test('that they are inactive', async () => {
    const member = { ...alice, membership: { ...membership, active: false } }
    expect(await textOf(memberPage(member, config))).toContain('Your membership is inactive')
    expect(await textOf(memberPage(alice, config))).not.toContain('inactive')
  })

  test('that the connection is lost, and how to have it back', async () => {
    const text = await textOf(memberPage({ ...alice, session: 'lost' }, config))
    expect(text).toContain('The connection to your PDS is lost')
    expect(text).toMatch(new RegExp(`name="handle" value="${did}".*Sign in again`, 's'))
  })

  test('what their PDS did not grant', async () => {
    const missingScopes = ['repo:zone.stratos.feed.post']
    const text = await textOf(memberPage({ ...alice, missingScopes }, config))
    expect(text).toContain('<code>zone.stratos.feed.post</code>')
    expect(text).toContain('Enroll again')
  })
})

test('markup keeps markup, and texts and lists in it', () => {
  const items = ['<a>', 'b'].map((text) => html`<li>${text}</li>`)
  expect(String(html`<b title="${`"'`}">${items}${undefined}</b>`)).toBe(
    '<b title="&quot;&#39;"><li>&lt;a&gt;</li><li>b</li></b>',
  )
})

test('the files of the pages are whole, and at the addresses that the pages name', async () => {
  for (const [address, type] of [
    [assetPaths.script, 'text/javascript'],
    [assetPaths.style, 'text/css'],
    [assetPaths.icon, 'image/svg+xml'],
  ] as const) {
    const response = assets[address.replace(/\?v=[0-9a-f]{12}$/, '')]?.()
    expect(response?.headers.get('content-type')).toStartWith(type)
    expect(response?.headers.get('x-content-type-options')).toBe('nosniff')
    expect(response?.headers.get('cache-control')).toBe('public, max-age=3600')
    expect((await response?.text())?.length).toBeGreaterThan(200)
  }
  const script = (await assets['/page.js']?.().text()) ?? ''
  expect(script).toContain('/oauth/revoke')
  expect(script).not.toMatch(/\bimport\b|innerHTML|document\.write|\beval\b/)
})

/** What a browser would run of it: the addresses of scripts, and whatever should not be there. */
async function elementsOf(text: string) {
  const scripts: (string | null)[] = []
  const foreign: string[] = []
  const look = new HTMLRewriter().on('*', {
    element(element) {
      if (element.tagName === 'script') scripts.push(element.getAttribute('src'))
      for (const [name, value] of element.attributes) {
        const runs =
          name.startsWith('on') || name === 'style' || /^\s*(javascript|data):/i.test(value)
        if (runs) foreign.push(`${element.tagName} ${name}=${value}`)
      }
      if (['style', 'iframe', 'object', 'base'].includes(element.tagName)) {
        foreign.push(element.tagName)
      }
    },
  })
  await look.transform(new Response(text)).text()
  return { scripts, foreign }
}

/** With every run of white space as one blank. */
async function textOf(page: Response): Promise<string> {
  return (await page.text()).replace(/\s+/g, ' ')
}
