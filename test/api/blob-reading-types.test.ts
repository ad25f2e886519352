import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { getBlob, picture, uploadBlob } from '../kit/blob.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { SeededStratos } from '../kit/seeded.ts'
import { textOf } from '../kit/xrpc.ts'

setDefaultTimeout(60_000)

const hidden = 'application/octet-stream'
const script = '<script>document.title = "run"</script>'
const page = `<!doctype html><html>${script}</html>`
const drawing = `<svg xmlns="http://www.w3.org/2000/svg">${script}</svg>`

let stratos: SeededStratos
beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a'], bob: ['a'] } })
})
afterAll(async () => {
  await stratos?.stop()
})

test.each<[claimed: string, bytes: string | Uint8Array, shown: string]>([
  ['image/png', picture(), 'image/png'],
  ['image/jpeg', 'a picture', 'image/jpeg'],
  ['image/gif', 'GIF89a and so on', 'image/gif'],
  ['image/webp', 'a picture', 'image/webp'],
  ['image/avif', 'a picture', 'image/avif'],
  ['video/mp4', 'a film', 'video/mp4'],
  ['video/webm', 'a film', 'video/webm'],
  ['text/html', picture(), 'image/png'],
  ['text/html', page, hidden],
  ['TEXT/HTML; charset=utf-8', page, hidden],
  ['application/xhtml+xml', page, hidden],
  ['image/svg+xml', drawing, hidden],
  ['image/svg+xml', `<?xml version="1.0"?>${drawing}`, hidden],
  ['image/png', `<?xml version="1.0"?>${drawing}`, hidden],
  ['text/javascript', 'alert(1)', hidden],
  ['application/javascript', 'alert(1)', hidden],
  ['text/css', 'body {}', hidden],
  ['text/plain', 'a text', hidden],
  ['text/xml', '<?xml version="1.0"?><a/>', hidden],
  ['application/xml', '<a/>', hidden],
  ['application/xslt+xml', '<a/>', hidden],
  ['application/pdf', '%PDF-1.7\n', hidden],
  ['image/png', '%PDF-1.7\n', hidden],
  ['application/wasm', new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]), hidden],
  ['application/x-shockwave-flash', 'FWS', hidden],
  ['multipart/x-mixed-replace', 'a', hidden],
  ['message/rfc822', 'From: a', hidden],
  ['application/json', '{}', hidden],
  ['image/bmp', 'a picture', hidden],
  ['video/quicktime', 'a film', hidden],
  ['image/png, text/html', page, hidden],
  ['image/png\ttext/html', page, hidden],
  // Nobody's browser makes anything else of it: it is told not to guess.
  ['image/png', page, 'image/png'],
  ['image/png;charset=x', page, 'image/png'],
])('what is said to be %p is shown as what is harmless', async (claimed, bytes, shown) => {
  // Like no other, so that none of before lends it its type.
  const own =
    typeof bytes === 'string' ? Buffer.from(`${bytes}<!-- ${crypto.randomUUID()} -->`) : bytes
  const ref = await uploadBlob(stratos, 'alice', { bytes: new Uint8Array(own), type: claimed })
  const record = { ...privatePost('a post', [stratos.boundary('a')]), extra: ref }
  const { did } = stratos.person('alice')
  const input = { repo: did, collection: postCollection, record }
  expect(await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })).toMatchObject({
    status: 200,
  })
  const params = { did, cid: ref.ref.$link }
  const made = await stratos.callAs('bob', 'zone.stratos.sync.getBlobUrl', { params })
  const authorization = stratos.person('bob').bearer
  const answers = [
    await getBlob(stratos, 'alice', { cid: params.cid, authorization }),
    await fetch(textOf(made.body, 'url')),
  ]
  for (const answer of answers) {
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe(shown)
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(answer.headers.get('content-security-policy')).toBe("default-src 'none'; sandbox")
    expect(answer.headers.get('content-disposition')).toBe(`attachment; filename="${params.cid}"`)
    expect(await answer.bytes()).toEqual(new Uint8Array(own))
  }
})
