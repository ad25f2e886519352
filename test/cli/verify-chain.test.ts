import { afterAll, afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { ServiceKey, SigningKey } from '../../src/atproto/keys.ts'
import { attest, type AttestationClaim } from '../../src/service/attestation.ts'
import { carOf, repoBlocks, repoDid, repoKey } from '../atproto/repo-car.ts'
import { type Account, Directory } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { SignpostPds, SignpostService } from './signposts.ts'
import { type Checked, runVerify } from './verified.ts'

const path = join(temporaryFolder(), 'repo.car')
await Bun.write(path, carOf(repoBlocks(3)))
const other: Did = parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa')

let directory: Directory
let pds: SignpostPds
let service: SignpostService

beforeEach(() => {
  directory = new Directory()
  pds = new SignpostPds()
  service = new SignpostService()
  directory.accounts.set(repoDid, { pds: pds.url })
  pds.records.set(service.rkey, service.record(claim()))
})
afterEach(async () => {
  await Promise.all([directory, pds, service].map((one) => one[Symbol.asyncDispose]()))
})

test('every link from the DID to the signature is told', async () => {
  const { code, lines } = await check()
  expect(lines).toEqual([
    'ok      hashes: 7 blocks, each what its CID names',
    expect.stringContaining(`ok      commit: of ${repoDid}, rev 2222222222222, tree bafyrei`),
    `ok      DID document: ${repoDid} lives at ${pds.url}`,
    `ok      enrollment: with ${service.did} at ${service.url}, key ${repoKey.did}`,
    `ok      service: ${service.did} is at ${service.url} and has the key ${service.key.did}`,
    `ok      attestation: by ${service.key.did}, that the account has this key`,
    `ok      signature: of the commit by ${repoKey.did}`,
    'ok      tree: 3 records in 3 nodes',
    'ok      contents: 3 present, 0 missing',
    'all 9 checks held',
  ])
  expect(code).toBe(0)
})

describe('it ends with 1 and names the link that breaks:', () => {
  const breaks: [string, string, string, () => void][] = [
    ['no such DID', 'DID document', 'absent', () => directory.accounts.clear()],
    [
      'a directory in trouble',
      'DID document',
      'unreachable',
      () => (directory.broken = { status: 500 }),
    ],
    [
      'the document of another DID',
      'DID document',
      'malformed',
      () => account({ id: other, pds: pds.url }),
    ],
    ['a document without a PDS', 'DID document', 'names no PDS', () => account({})],
    [
      'a PDS that is not there',
      'enrollment',
      '127.0.0.1:1',
      () => account({ pds: 'http://127.0.0.1:1' }),
    ],
    [
      'a PDS that fails',
      'enrollment',
      'answered 500',
      () => answering(() => new Response('', { status: 500 })),
    ],
    [
      'a PDS that answers no JSON',
      'enrollment',
      'else than XRPC',
      () => answering(() => new Response('<h1>')),
    ],
    [
      'a PDS that answers no list',
      'enrollment',
      'else than XRPC',
      () => answering(() => Response.json([])),
    ],
    [
      'a PDS with nameless records',
      'enrollment',
      'without a name',
      () => answering(() => Response.json({ records: [1] })),
    ],
    [
      'a PDS with records of others',
      'enrollment',
      'others’ records',
      () => answering(() => Response.json({ records: [{ uri: `at://${other}/a/b` }] })),
    ],
    [
      'a PDS whose list does not end',
      'enrollment',
      'does not end',
      () => answering(() => Response.json({ records: [], cursor: 'x' })),
    ],
    ['no enrollment record', 'enrollment', 'found none', () => pds.records.clear()],
    ['a record at another key', 'enrollment', 'found none', () => moved('self')],
    ['a record at the key of no did:web', 'enrollment', 'found none', () => moved(other)],
    ['a record of another shape', 'enrollment', 'found none', () => recorded({ signingKey: 1 })],
    [
      'a record whose boundaries are none',
      'enrollment',
      'found none',
      () => recorded({ boundaries: [1] }),
    ],
    [
      'a record without attestation',
      'enrollment',
      'found none',
      () => recorded({ attestation: null }),
    ],
    ['a service that is not there', 'service', 'unreachable', () => moved('did:web:localhost:1')],
    [
      'a service at another address',
      'service',
      'expected it at http://evil.test',
      () => recorded({ service: 'http://evil.test' }),
    ],
    [
      'a document that says another address',
      'service',
      'says http://evil.test',
      () => (service.said = { endpoint: 'http://evil.test' }),
    ],
    [
      'a document without this service',
      'service',
      'names none',
      () => (service.said = { type: 'Other' }),
    ],
    [
      'the document of another service',
      'service',
      'malformed',
      () => (service.said = { id: 'did:web:evil.test' }),
    ],
    [
      'a document without a key',
      'service',
      'no usable #atproto key',
      () => (service.said = { key: 'did:key:zNone' }),
    ],
    [
      'a document with another key',
      'attestation',
      'expected one by',
      () => (service.said = { key: ServiceKey.generate().did }),
    ],
    [
      'an attestation by another key',
      'attestation',
      'expected one by',
      () => attested(claim(), ServiceKey.generate()),
    ],
    [
      'an attestation that only says that it is by the service',
      'attestation',
      'expected a signature',
      forged,
    ],
    [
      'an attestation over another DID',
      'attestation',
      'expected a signature',
      () => attested({ ...claim(), did: other }),
    ],
    [
      'an attestation over another key',
      'attestation',
      'expected a signature',
      () => attested({ ...claim(), signingKey: service.key.did }),
    ],
    [
      'an attestation over fewer boundaries',
      'attestation',
      'expected a signature',
      () => attested({ ...claim(), boundaries: [] }),
    ],
    [
      'boundaries that the record leaves out',
      'attestation',
      'expected a signature',
      () => recorded({ boundaries: undefined }),
    ],
    [
      'a signature that is cut',
      'attestation',
      'expected a signature',
      () => recorded({ attestation: { sig: { $bytes: 'AAAA' }, signingKey: service.key.did } }),
    ],
    [
      'another key of the account',
      'signature',
      'expected one of the commit',
      () => enrolledWith(SigningKey.generate().did),
    ],
    [
      'a key that is none',
      'signature',
      'expected one of the commit',
      () => enrolledWith('did:key:zNone'),
    ],
    ['several services, none of which has this key', 'signature', 'by one of', severalOthers],
  ]
  test.each(breaks)('%s', async (_, check_, why, broken) => {
    broken()
    const checked = await check()
    expect(checked.failed).toEqual([check_])
    expect(checked.lines.find((line) => line.startsWith('FAILED'))).toContain(why)
    expect(checked.lines.at(-1)).toMatch(/^1 of \d+ checks failed$/)
    expect(checked.code).toBe(1)
  })

  test('another account than the one that is expected, and nobody is asked', async () => {
    const checked = await check('--did', other)
    expect(checked).toMatchObject({ code: 1, failed: ['account'] })
    expect([...directory.asked, ...pds.asked]).toEqual([])
  })

  test('a private network that is not allowed', async () => {
    const env = { STRATOS_ALLOW_PRIVATE_NETWORK: 'false' }
    const checked = await runVerify([path], { STRATOS_PLC_URL: directory.url, ...env })
    expect(checked).toMatchObject({ code: 1, failed: ['DID document'] })
    expect(directory.asked).toEqual([])
  })
})

describe('of several services', () => {
  const second = new SignpostService()
  afterAll(() => second[Symbol.asyncDispose]())
  beforeEach(() => {
    const signingKey = SigningKey.generate().did
    pds.records.set(second.rkey, second.record({ ...claim(), signingKey }))
    pds.records.set('self', { hello: 'world' })
  })

  test('the one whose key signed is followed', async () => {
    const { code, lines } = await check()
    expect(code).toBe(0)
    expect(lines).toContain(
      `ok      service: ${service.did} is at ${service.url} and has the key ${service.key.did}`,
    )
    expect(lines.join('\n')).not.toContain(second.url)
    expect(lines).toContain('--      enrollment: the record at self is of another shape')
  })

  test('the one that is named is followed, and no other', async () => {
    expect(await check('--service', service.did)).toMatchObject({ code: 0 })
    expect(await check('--service', second.did)).toMatchObject({ code: 1, failed: ['signature'] })
    const third = await check('--service', 'did:web:stratos.example.com')
    expect(third).toMatchObject({ code: 1, failed: ['enrollment'] })
  })

  test('all that claim the key that signed must hold', async () => {
    pds.records.set(second.rkey, second.record(claim()))
    expect(await check()).toMatchObject({ code: 0 })
    second.said = { key: ServiceKey.generate().did }
    expect(await check()).toMatchObject({ code: 1, failed: ['attestation'] })
    expect(await check('--service', service.did)).toMatchObject({ code: 0 })
  })
})

test('with --key nobody is asked', async () => {
  const checked = await check('--key', repoKey.did, '--did', repoDid)
  expect(checked).toMatchObject({ code: 0, failed: [] })
  expect([...directory.asked, ...pds.asked]).toEqual([])
})

test('a service that publishes no boundaries attests to none', async () => {
  const none = { ...claim(), boundaries: [] }
  recorded({ boundaries: undefined, attestation: attest(none, service.key) })
  expect(await check()).toMatchObject({ code: 0 })
})

test('what others have chosen moves no cursor', async () => {
  recorded({ service: 'http://\u{1b}[2J\u{202e}evil.test' })
  const { lines } = await check()
  expect(lines.join('')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
})

async function check(...more: readonly string[]): Promise<Checked> {
  return await runVerify([path, ...more], { STRATOS_PLC_URL: directory.url })
}

function claim() {
  const boundaries = [`${service.did}/b`, `${service.did}/a`]
  return { boundaries, did: repoDid, signingKey: repoKey.did }
}

function account(entry: Account): void {
  directory.accounts.set(repoDid, entry)
}

function answering(answer: () => Response): void {
  pds.broken = answer
}

function recorded(members: object): void {
  pds.records.set(service.rkey, { ...service.record(claim()), ...members })
}

function moved(rkey: string): void {
  pds.records.clear()
  pds.records.set(rkey, service.record(claim()))
}

function attested(claim: AttestationClaim, key = service.key): void {
  recorded({ attestation: attest(claim, key) })
}

function forged(): void {
  const { sig } = attest(claim(), ServiceKey.generate())
  recorded({ attestation: { sig, signingKey: service.key.did } })
}

function enrolledWith(signingKey: string): void {
  pds.records.set(service.rkey, service.record({ ...claim(), signingKey }))
}

function severalOthers(): void {
  for (const rkey of [service.rkey, 'did:web:stratos.example.com']) {
    const signingKey = SigningKey.generate().did
    pds.records.set(rkey, service.record({ ...claim(), signingKey }))
  }
}
