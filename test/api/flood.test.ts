import { Secp256k1Keypair } from '@atproto/crypto'
import { afterAll, beforeEach, describe, expect, test } from 'bun:test'
import { perSecondMax } from '../../src/api/first-sight.ts'
import { ServiceAuth } from '../../src/api/service-auth.ts'
import type { XrpcError } from '../../src/atproto/errors.ts'
import { fastestK256, type K256Verifier } from '../../src/atproto/k256.ts'
import { type Did, parseDid, parseNsid } from '../../src/atproto/syntax.ts'
import { Identities } from '../../src/remote/identity.ts'
import { UsedTokenStore } from '../../src/store/used-token.ts'
import { serviceSql } from '../kit/service-store.ts'
import { serviceToken } from '../kit/token.ts'
import { failureOf } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'
import { temporaryFolder } from '../store/temporary.ts'

// All of these come from addresses that are within their own budgets, or have none yet.
const aud = parseDid('did:web:stratos.example.com')
const lxm = parseNsid('zone.stratos.repo.createRecord')
const minute = 60_000
const overloaded = { status: 503, error: 'Overloaded', headers: { 'retry-after': '1' } }
const invalid = { status: 401, error: 'InvalidToken' }
const used = new UsedTokenStore(await serviceSql(temporaryFolder()))
const key = await Secp256k1Keypair.create()
const foreignKey = await Secp256k1Keypair.create()
const { verifier } = fastestK256()

let directory: Directory
let clock: Clock
let members: Set<Did>
let checked: number
let auth: ServiceAuth

beforeEach(async () => {
  await directory?.[Symbol.asyncDispose]()
  directory = new Directory()
  clock = new Clock()
  members = new Set()
  checked = 0
  const k256: K256Verifier = {
    name: 'counting',
    verify: (signed) => {
      checked += 1
      return verifier.verify(signed)
    },
  }
  auth = new ServiceAuth({
    serviceDid: aud,
    fragment: 'atproto_pns',
    identities: new Identities({ plcUrl: directory.url, fetch: loopbackFetch, now: clock.now }),
    used,
    k256,
    serviceAuthSingleUse: false,
    isKnown: async (did) => members.has(did),
    now: clock.now,
  })
})

afterAll(async () => {
  await directory[Symbol.asyncDispose]()
})

describe('tokens in the names of ever new strangers', () => {
  test('cause so many look-ups a second and no more, from however many addresses', async () => {
    const refused = await flood(100, async (index) => {
      const did = stranger()
      return { token: await forged(did), address: addressOf(index) }
    })
    expect(directory.asked).toHaveLength(perSecondMax.strangeLookUps)
    expect(refused.filter(({ status }) => status === 401)).toHaveLength(perSecondMax.strangeLookUps)
    expect(refused.at(-1)).toMatchObject(overloaded)
    clock.ms += 1000
    await flood(100, async (index) => ({
      token: await forged(stranger()),
      address: addressOf(index),
    }))
    expect(directory.asked).toHaveLength(perSecondMax.strangeLookUps * 2)
  })

  test('keep no member out, wherever from, and nobody who was here before', async () => {
    const member = person({ isMember: true })
    const guest = person({ isMember: false })
    expect(await verify(guest, '192.0.2.1')).toBe(guest)
    clock.ms += 6 * minute
    await flood(100, async (index) => ({
      token: await forged(stranger()),
      address: addressOf(index),
    }))
    const other = person({ isMember: false })
    expect(await failureOf(verify(other, '192.0.2.2'))).toMatchObject(overloaded)
    expect(await verify(member, '192.0.2.3')).toBe(member)
    expect(await verify(guest, '192.0.2.1')).toBe(guest)
    clock.ms += 1000
    expect(await verify(other, '192.0.2.2')).toBe(other)
  })

  test('at hosts of a did:web are bounded like those of the directory', async () => {
    let asked = 0
    const host = Bun.serve({
      port: 0,
      hostname: '127.0.0.1',
      fetch: () => {
        asked += 1
        return new Response(null, { status: 404 })
      },
    })
    try {
      const did = parseDid(`did:web:localhost%3A${host.port}`)
      const bad = async () => await failureOf(auth.verify(await forged(did), door('192.0.2.1')))
      for (let count = 0; count < 10; count++) expect(await bad()).toMatchObject(invalid)
      expect(asked).toBe(1)
      // As many as there may be, by others: then this one is not asked either.
      clock.ms += minute
      await flood(perSecondMax.strangeLookUps, async (index) => ({
        token: await forged(stranger()),
        address: addressOf(index),
      }))
      expect(await bad()).toMatchObject(overloaded)
      expect(asked).toBe(1)
    } finally {
      await host.stop(true)
    }
  })
})

describe('tokens in the names of members', () => {
  test('cause so many look-ups a second, and who was here before does not wait', async () => {
    const guest = person({ isMember: true })
    expect(await verify(guest, '192.0.2.1')).toBe(guest)
    clock.ms += 6 * minute
    const asked = directory.asked.length
    const refused = await flood(perSecondMax.knownLookUps + 20, async (index) => {
      const did = person({ isMember: true })
      return { token: await forged(did), address: addressOf(index) }
    })
    expect(refused.at(-1)).toMatchObject(overloaded)
    // Beside the first looks there are a few to see whether keys have changed.
    const most = perSecondMax.knownLookUps + perSecondMax.refreshes
    expect(directory.asked.length - asked).toBe(most)
    expect(await verify(guest, '192.0.2.1')).toBe(guest)
  })

  test('cause so many new looks a second for changed keys, and a member’s own is made', async () => {
    const members = Array.from({ length: 30 }, () => person({ isMember: true }))
    const [first = members[0]] = members
    if (first === undefined) throw new Error('there are thirty')
    for (const did of members) expect(await verify(did, '192.0.2.1')).toBe(did)
    const asked = directory.asked.length
    await flood(29, async (index) => {
      return { token: await forged(members[index + 1] ?? first), address: addressOf(index) }
    })
    expect(directory.asked.length - asked).toBe(perSecondMax.refreshes)
    directory.accounts.set(first, { didKey: foreignKey.did() })
    expect(await auth.verify(await forged(first), door('192.0.2.1'))).toBe(first)
  })
})

describe('forged signatures', () => {
  test('are so many a second at most, and who was here before does not wait', async () => {
    const victim = person({ isMember: true })
    expect(await verify(victim, '192.0.2.1')).toBe(victim)
    clock.ms += 1000
    checked = 0
    const token = await forged(victim)
    const refused = await flood(perSecondMax.signatures + 50, async (index) => {
      return { token, address: addressOf(index) }
    })
    expect(checked).toBe(perSecondMax.signatures)
    expect(refused.at(0)).toMatchObject(invalid)
    expect(refused.at(-1)).toMatchObject(overloaded)
    expect(await verify(victim, '192.0.2.1')).toBe(victim)
    expect(await failureOf(verify(victim, '192.0.2.9'))).toMatchObject(overloaded)
    clock.ms += 1000
    expect(await verify(victim, '192.0.2.9')).toBe(victim)
  })

  test('count for all again once one came from where somebody was before', async () => {
    const victim = person({ isMember: true })
    expect(await verify(victim, '192.0.2.1')).toBe(victim)
    expect(await failureOf(auth.verify(await forged(victim), door('192.0.2.1')))).toMatchObject(
      invalid,
    )
    const token = await forged(victim)
    await flood(perSecondMax.signatures, async (index) => ({ token, address: addressOf(index) }))
    expect(await failureOf(verify(victim, '192.0.2.1'))).toMatchObject(overloaded)
  })

  test('take nothing from a token that was seen before', async () => {
    const guest = person({ isMember: false })
    const token = await good(guest)
    expect(await auth.verify(token, door('192.0.2.1'))).toBe(guest)
    const bad = await forged(guest)
    await flood(perSecondMax.signatures + 1, async (index) => {
      return { token: bad, address: addressOf(index) }
    })
    checked = 0
    expect(await auth.verify(token, door('192.0.2.7'))).toBe(guest)
    expect(checked).toBe(0)
  })
})

test('that a signature is good is remembered for five minutes, and not for longer', async () => {
  const member = person({ isMember: true })
  const seconds = Math.floor(clock.ms / 1000)
  const token = await serviceToken(
    someone(member),
    { aud, lxm },
    { claims: { iat: seconds, exp: seconds + 3600 } },
  )
  const ask = async () => {
    checked = 0
    expect(await auth.verify(token, door('192.0.2.1'))).toBe(member)
    return checked
  }
  expect(await ask()).toBe(1)
  expect(await ask()).toBe(0)
  clock.ms += 5 * minute - 1
  expect(await ask()).toBe(0)
  clock.ms += 1
  expect(await ask()).toBe(1)
})

test('what is no token, or has claims that are wrong, is looked up and checked nowhere', async () => {
  const member = person({ isMember: true })
  const bad = [
    'a.b.c',
    await serviceToken(someone(member), { aud: 'did:web:other.example', lxm }),
    await serviceToken(someone(member), { aud, lxm: 'zone.stratos.repo.putRecord' }),
  ]
  for (const token of bad) {
    expect(await failureOf(auth.verify(token, door('192.0.2.1')))).toMatchObject(invalid)
  }
  expect([directory.asked, checked]).toEqual([[], 0])
})

function door(address: string) {
  return { nsid: lxm, tokens: 'any', address } as const
}

/** Somebody whom the directory knows. */
function person({ isMember }: { readonly isMember: boolean }): Did {
  const did = directory.add({ didKey: key.did() })
  if (isMember) members.add(did)
  return did
}

/** And somebody whom it does not. */
function stranger(): Did {
  const did = directory.add({})
  directory.accounts.delete(did)
  return did
}

function someone(did: Did) {
  return { did, key, handle: '', bearer: '' }
}

function good(did: Did): Promise<string> {
  const seconds = Math.floor(clock.ms / 1000)
  const claims = { iat: seconds, exp: seconds + 60, jti: crypto.randomUUID() }
  return serviceToken(someone(did), { aud, lxm }, { claims })
}

function forged(did: Did): Promise<string> {
  const seconds = Math.floor(clock.ms / 1000)
  const claims = { iat: seconds, exp: seconds + 60, jti: crypto.randomUUID() }
  const sign = (bytes: Uint8Array) => foreignKey.sign(bytes)
  return serviceToken(someone(did), { aud, lxm }, { claims, sign })
}

async function verify(did: Did, address: string): Promise<Did> {
  return await auth.verify(await good(did), door(address))
}

/** Of all that come one after the other, what each is refused with. */
async function flood(
  count: number,
  make: (index: number) => Promise<{ token: string; address: string }>,
): Promise<XrpcError[]> {
  const refused: XrpcError[] = []
  for (let index = 0; index < count; index++) {
    const { token, address } = await make(index)
    const error = await failureOf(auth.verify(token, door(address)))
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- compared by what calls
    refused.push(error as XrpcError)
  }
  return refused
}

function addressOf(index: number): string {
  return `10.0.${index >> 8}.${index & 255}`
}
