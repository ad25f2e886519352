import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { findChromium, launchChromium } from '../kit/chromium.ts'
import { exactText } from '../kit/exact.ts'
import { blobSubject, recordSubject, repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { textOf } from '../kit/xrpc.ts'
import { getUrl, Linking, type Shown, statusOf } from './blob-linking.ts'

setDefaultTimeout(60_000)

const executablePath = findChromium()

let linking: Linking
let shown: Shown
let other: Shown
beforeAll(async () => {
  linking = await Linking.start()
  shown = await linking.show('alice', ['a'])
  other = await linking.show('alice', ['a'])
})
afterAll(async () => {
  await linking?.[Symbol.asyncDispose]()
})

describe('a link shows nothing any more', () => {
  /** What ends it, and what brings it back where anything does. */
  interface End {
    readonly end: (one: Shown) => Promise<unknown>
    readonly back?: (one: Shown) => Promise<unknown>
    readonly viewers?: readonly string[]
  }
  const both = ['alice', 'bob']
  const takedown = (subject: (one: Shown) => object): End => ({
    end: (one) => setTakedown(linking.stratos, subject(one), { applied: true }),
    back: (one) => setTakedown(linking.stratos, subject(one), { applied: false }),
    // What the owner is told of a takedown is told by the methods only.
    viewers: both,
  })
  const ends: Readonly<Record<string, End>> = {
    'once its viewer is in the boundary no more': {
      end: () => linking.stratos.setBoundaries('bob', []),
      back: () => linking.stratos.setBoundaries('bob', ['a']),
    },
    'once the record is in another boundary': {
      end: (one) => linking.put(one, ['b'], one.ref),
      back: (one) => linking.put(one, ['a'], one.ref),
    },
    'once the record names another blob': {
      end: (one) => linking.put(one, ['a'], other.ref),
      viewers: both,
    },
    'once the record is gone': {
      end: ({ uri }) => linking.remove(uri),
      viewers: both,
    },
    'while the record is taken down': takedown(({ uri, cid }) => recordSubject({ uri, cid })),
    'while the blob is taken down': takedown(({ cid }) => blobSubject(linking.params({ cid }))),
    'while the repo is taken down': takedown(() => repoSubject(linking.did('alice'))),
  }

  test.each(Object.entries(ends))('%s', async (_, { end, back, viewers = ['bob'] }) => {
    const one = await linking.show('alice', ['a'])
    const links = await Promise.all(viewers.map((name) => linking.link(name, one)))
    for (const url of links) expect(await statusOf(url)).toBe(200)
    await end(one)
    for (const url of links) {
      const never = await exactText(await fetch(linking.never(one)))
      expect(await exactText(await fetch(url))).toBe(never)
    }
    expect(await linking.seen('bob', one)).toBe(404)
    if (back === undefined) return
    await back(one)
    for (const url of links) expect(await statusOf(url)).toBe(200)
    expect(await linking.seen('bob', one)).toBe(200)
  })

  test('once the last of the records is gone that its viewer may read', async () => {
    const one = await linking.show('alice', ['a'])
    const second = await linking.post('alice', ['a', 'b'], one.ref)
    const third = await linking.post('alice', ['b'], one.ref)
    const ofBob = await linking.link('bob', one)
    const ofCarol = await linking.link('carol', one)
    for (const [uri, bob, carol] of [
      [one.uri, 200, 200],
      [second, 404, 200],
      [third, 404, 404],
    ] as const) {
      await linking.remove(uri)
      expect([await statusOf(ofBob), await statusOf(ofCarol)]).toEqual([bob, carol])
    }
  })

  test('once its viewer has left, and once its owner has', async () => {
    const mine = await linking.link('lou', shown)
    const ofMo = await linking.show('mo', ['a'])
    const links = [await linking.link('bob', ofMo, 'mo'), await linking.link('mo', ofMo, 'mo')]
    for (const url of [mine, ...links]) expect(await statusOf(url)).toBe(200)
    for (const name of ['lou', 'mo']) await linking.leave(name)
    for (const url of [mine, ...links]) expect(await statusOf(url)).toBe(404)
  })

  test('once its AppView has another grant, or none', async () => {
    const { stratos } = linking
    const view = stratos.person('view')
    const token = await serviceToken(view, { aud: stratos.did, lxm: getUrl })
    const authorization = `Bearer ${token}`
    const { body } = await stratos.call(getUrl, { params: linking.params(shown), authorization })
    const url = textOf(body, 'url')
    const ofBob = await linking.link('bob', shown)
    expect(await statusOf(url)).toBe(200)
    for (const [grant, status] of [
      [`${view.did}=b`, 404],
      ['', 404],
      [`${view.did}=b|a`, 200],
    ] as const) {
      await linking.restart({ STRATOS_ALLOWED_APPVIEWS: grant })
      expect(await statusOf(url)).toBe(status)
      // Links outlive the process.
      expect(await statusOf(ofBob)).toBe(200)
    }
  })
})

describe.skipIf(executablePath === undefined)('in a browser', () => {
  test('a picture stands in the page of any site, while its viewer may see it', async () => {
    const url = await linking.link('bob', shown)
    const page = `<!doctype html><title>other</title><img src="${Bun.escapeHTML(url)}">`
    using site = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => new Response(page, { headers: { 'content-type': 'text/html' } }),
    })
    const browser = await launchChromium(executablePath)
    try {
      const tab = await browser.newPage()
      const widthOf = async () => {
        await tab.goto(site.url.href, { waitUntil: 'load' })
        return await tab.evaluate('document.images[0].naturalWidth')
      }
      expect(await widthOf()).toBe(8)
      // The browser has it in its cache by now, and asks nevertheless.
      await linking.stratos.setBoundaries('bob', [])
      expect(await widthOf()).toBe(0)
      await linking.stratos.setBoundaries('bob', ['a'])
      expect(await widthOf()).toBe(8)
    } finally {
      await browser.close()
    }
  })

  test('a page is kept, and never shown', async () => {
    const html = '<!doctype html><title>run</title><script>document.title = "run"</script>'
    const one = await linking.show('alice', ['a'], new Uint8Array(Buffer.from(html)))
    const url = await linking.link('bob', one)
    const browser = await launchChromium(executablePath)
    try {
      const tab = await browser.newPage()
      const download = tab.waitForEvent('download')
      // It leads to no page.
      await tab.goto(url).catch(() => undefined)
      expect((await download).suggestedFilename()).toStartWith(one.cid)
      expect(await tab.title()).toBe('')
    } finally {
      await browser.close()
    }
  })
})
