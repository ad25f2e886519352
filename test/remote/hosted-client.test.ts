import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { createLog } from '../../src/lib/log.ts'
import { checkHostedMetadata } from '../../src/remote/hosted-client.ts'
import { type ClientMetadata, clientMetadataOf } from '../../src/remote/oauth-client.ts'
import { loopbackFetch } from './directory.ts'

let host: Bun.Server<undefined>
let answer: () => Response
let wanted: ClientMetadata
let log: string[]

beforeEach(() => {
  host = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => answer() })
  const metadata = clientMetadataOf({
    publicUrl: 'https://stratos.example.com',
    clientName: 'Stratos',
    scope: 'atproto repo:zone.stratos.feed.post',
    clientId: 'https://www.example.com/client.json',
  })
  // No test has a certificate for that name.
  const client_id = `http://127.0.0.1:${host.port}/client.json`
  wanted = Object.assign({}, metadata, { client_id })
  log = []
})

afterEach(async () => {
  await host.stop(true)
})

async function faults(hosted: () => Response): Promise<unknown> {
  answer = hosted
  const lines = createLog('info', (line) => void log.push(line))
  await checkHostedMetadata(wanted, { fetch: loopbackFetch, log: lines })
  const [line] = log.splice(0)
  return line === undefined ? [] : JSON.parse(line).wrong
}

describe('hosted client metadata', () => {
  test('that are a copy of ours, or grant more, are fine', async () => {
    expect(await faults(() => Response.json(wanted))).toEqual([])
    const more = {
      ...wanted,
      redirect_uris: ['https://other.example.com/', ...wanted.redirect_uris],
      scope: `${wanted.scope} transition:generic`,
    }
    expect(await faults(() => Response.json(more))).toEqual([])
  })

  test.each<[string, Record<string, unknown>]>([
    ['client_id', { client_id: 'https://www.example.com/other.json' }],
    ['token_endpoint_auth_method', { token_endpoint_auth_method: 'none' }],
    ['jwks_uri', { jwks_uri: 'https://www.example.com/jwks.json' }],
    ['dpop_bound_access_tokens', { dpop_bound_access_tokens: undefined }],
    ['redirect_uris', { redirect_uris: ['https://www.example.com/callback'] }],
    ['scope', { scope: 'atproto' }],
    ['scope', { scope: undefined }],
    ['grant_types', { grant_types: ['authorization_code'] }],
  ])('whose %s is not ours are named to the operator', async (name, change) => {
    expect(await faults(() => Response.json({ ...wanted, ...change }))).toEqual([name])
  })

  test('that are none are', async () => {
    const html = { headers: { 'content-type': 'text/html' } }
    expect(await faults(() => new Response(null, { status: 404 }))).toEqual(['status 404'])
    expect(await faults(() => new Response('{}', html))).toEqual(['content-type'])
    expect(await faults(() => Response.json(null))).toEqual(['not a JSON object'])
  })

  test('that cannot be had stop nothing', async () => {
    await faults(() => Response.redirect('http://127.0.0.1:1/'))
    await host.stop(true)
    const lines = createLog('info', (line) => void log.push(line))
    await checkHostedMetadata(wanted, { fetch: loopbackFetch, log: lines })
    expect(log.join()).toContain('not-seen')
  })
})
