import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'

import { schemaDocs } from '../../src/atproto/schemas.ts'
import { updateStatus } from '../kit/takedown.ts'
import { verbOf } from '../kit/xrpc.ts'
import { type Door, doorClasses, type DoorClass, doors, type Outcome } from './doors.ts'
import { type Break, brokenOutcome, invalid, type Kind, soundOutcome } from './kind.ts'
import { kinds } from './kinds.ts'
import { authorizationOf, type Got, send, type Sent } from './sent.ts'
import { World } from './world.ts'

setDefaultTimeout(60_000)

let world: World
let rows: Readonly<Record<string, string>>

beforeAll(async () => {
  world = await World.start()
})
afterAll(async () => {
  await world?.[Symbol.asyncDispose]()
})

test('every method of the service stands in one class', async () => {
  const served: string[] = []
  for (const { id, defs } of schemaDocs) {
    if (!/^(query|procedure|subscription)$/.test(defs['main']?.type ?? '')) continue
    const { body } = await world.stratos.call(id)
    if (!String(body['message']).includes('has no method')) served.push(id)
  }
  const methods = doors.map(({ name }) => name).filter((name) => !name.startsWith('/'))
  expect(methods.toSorted()).toEqual(served.toSorted())
})

test('an AppView and a moderation service count while they are listed', async () => {
  const view = { ...kindOf('service auth of an AppView that is off the list'), caller: 'appview' }
  const mod = { ...kindOf('service auth of a former moderation service'), caller: 'moderator' }
  await expectSound({ ...view, caller: 'appview' }, doorOf('zone.stratos.sync.getRepo'))
  await expectSound({ ...mod, caller: 'moderator' }, doorOf('com.atproto.admin.getSubjectStatus'))
})

test('the service starts anew without them', async () => {
  await world.restart(() => {
    rows = world.stored.rows()
  })
  expect(Object.keys(rows).length).toBeGreaterThan(20)
})

// A broken credential opens nothing, be it needed or not, and what could be changed stays as it is.
describe.each(Object.entries(kinds))('%s', (_, kind) => {
  const cells = Object.entries(kind.breaks).flatMap(([name, one]) =>
    doorClasses.flatMap((inClass) => {
      const at = doorsOf(inClass).filter((door) => one.at?.(door) !== false)
      return at.length === 0 ? [] : [[name, inClass, one, at] as const]
    }),
  )
  test.each(cells)('with %s is refused by methods of the class %s', async (_, inClass, one, at) => {
    const before = await stateOf(kind, inClass)
    await Promise.all(at.map((door) => expectRefused(kind, door, one)))
    expect(await world.state(kind.subject, inClass)).toBe(before)
  })
})

test('no broken credential has changed a row of any table', async () => {
  let after: typeof rows = {}
  await world.restart(() => {
    after = world.stored.rows()
  })
  expect(after).toEqual(rows)
})

test('the same calls with sound credentials do change what was compared', async () => {
  const calls = [
    ['service auth by K-256', 'zone.stratos.repo.createRecord'],
    ['service auth of the moderation service', updateStatus],
    ['the operator by Basic', 'zone.stratos.admin.addBoundary'],
  ] as const
  for (const [name, method] of calls) {
    const kind = kindOf(name)
    const door = doorOf(method)
    const before = await world.state(kind.subject, door.inClass)
    await expectSound(kind, door)
    expect(await world.state(kind.subject, door.inClass)).not.toBe(before)
  }
})

describe.each(Object.entries(kinds))('%s that is sound', (_, kind) => {
  test.each(doorClasses)('opens what it should, in the class %s', async (inClass) => {
    for (const door of doorsOf(inClass)) {
      await expectSound(kind, door)
      if (endsSession(door)) await kind.renew?.(world)
    }
  })
})

describe('where each token of service auth counts once', () => {
  test('the service starts anew', async () => {
    await world.restart(undefined, { STRATOS_SERVICE_AUTH_SINGLE_USE: 'true' })
  })

  const all = ['service auth of a stranger', 'service auth of an AppView']
  test.each(all)('%s opens what it should, and then nothing', async (name) => {
    for (const door of doors) {
      if (door.inClass !== 'page') await expectSound(kindOf(name), door, 'one')
    }
  })
})

test('neither credentials nor records are in the log', () => {
  const { log, marker, stratos, syncSecret, stored, staleNonce } = world
  expect(log).toContain('"path":"/xrpc/zone.stratos.repo.createRecord"')
  const { secret } = stored.sessionSecret
  const secrets = [
    marker,
    stratos.adminPassword,
    syncSecret,
    staleNonce,
    ...stored.cookies.values(),
    stratos.adminBasic.slice('Basic '.length),
    stored.serviceKeyHex,
    Buffer.from(secret).toString('hex'),
    Buffer.from(secret).toString('base64url'),
    // How the header of a JWT begins.
    'eyJ',
  ]
  for (const one of secrets) expect(log.includes(one)).toBeFalse()
})

test.each(['/health', '/ready', '/xrpc/_health', '/.well-known/did.json'])(
  'what %s says does not depend on who asks',
  async (path) => {
    const headers = { authorization: 'Bearer wrong' }
    expect((await fetch(world.stratos.url + path, { headers })).status).toBe(200)
  },
)

/** Who has the bytes may ask each time whether they are still to be shown. */
const ofBlobs = 'private, no-cache'
const states = new Map<string, string>()

/** Asked for once: every test afterwards has found it unchanged. */
async function stateOf({ subject }: Kind, inClass: DoorClass): Promise<string> {
  const key = `${subject} ${inClass}`
  const state = states.get(key) ?? (await world.state(subject, inClass))
  states.set(key, state)
  return state
}

async function expectRefused(kind: Kind, door: Door, { make, outcome }: Break): Promise<void> {
  const sent = await make(world, door)
  const got = await send(world, door, { subject: world.actor(kind.subject), sent })
  expectOutcome(door, { sent, got }, brokenOutcome(kind, door, outcome))
}

async function expectSound(kind: Kind, door: Door, uses = usesOf(kind, door)): Promise<void> {
  const sent = await kind.make(world, door)
  const subject = world.actor(kind.subject)
  const outcome = soundOutcome(kind, door)
  const got = await send(world, door, { subject, sent })
  expectOutcome(door, { sent, got }, outcome)
  if (uses === 'any') return
  const second = await send(world, door, { subject, sent })
  const isBad = uses === 'one' && !(outcome !== 'passes' && outcome[0] === 401)
  expectOutcome(door, { sent, got: second }, isBad ? invalid : outcome)
}

/** A query can be asked twice to see whether it is answered twice. */
function usesOf({ by, isOnce }: Kind, door: Door): 'any' | 'one' | 'two' {
  if (isOnce?.(door) === true) return 'one'
  const isQuery = verbOf(door.call(world.actor('alice'), world)) === 'GET'
  return by === 'service-auth' && isQuery ? 'two' : 'any'
}

function expectOutcome(
  { name, inClass }: Door,
  { sent, got }: { readonly sent: Sent; readonly got: Got },
  outcome: Outcome,
): void {
  const [status, error] = typeof outcome === 'string' ? [200, undefined] : outcome
  const { headers, body, text } = got
  const isDpop = /^dpop( |$)/i.test(authorizationOf(sent) ?? (sent.headers?.['dpop'] ? 'dpop' : ''))
  const challenge = isDpop
    ? `DPoP error="${error}", algs="ES256"`
    : `Bearer realm="stratos", error="${error}"`
  expect({
    name,
    status: got.status,
    error: body['error'],
    'www-authenticate': headers.get('www-authenticate'),
    'cache-control': headers.get('cache-control'),
    vary: headers.get('vary'),
    'access-control-allow-origin': headers.get('access-control-allow-origin'),
    'access-control-allow-credentials': headers.get('access-control-allow-credentials'),
    'has the record': text.includes(world.marker),
  }).toEqual({
    name,
    status,
    error,
    'www-authenticate': status === 401 ? challenge : null,
    'cache-control': outcome === 'reads' && name.endsWith('.getBlob') ? ofBlobs : 'no-store',
    vary: 'Authorization, DPoP, Cookie',
    'access-control-allow-origin': inClass === 'page' ? null : '*',
    'access-control-allow-credentials': null,
    'has the record': outcome === 'reads',
  })
  if (isDpop) expect(headers.get('dpop-nonce')).toBeString()
  if (status === 200) return
  expect(headers.get('set-cookie')).toBeNull()
  expect(Object.keys(body).toSorted()).toEqual(['error', 'message'])
}

function kindOf(name: string): Kind {
  const kind = kinds[name]
  if (kind === undefined) throw new Error(`no kind is called ${name}`)
  return kind
}

function doorOf(name: string): Door {
  const door = doors.find((one) => one.name === name)
  if (door === undefined) throw new Error(`no method is called ${name}`)
  return door
}

function doorsOf(inClass: DoorClass): readonly Door[] {
  return doors.filter((door) => door.inClass === inClass)
}

function endsSession({ name }: Door): boolean {
  return name.endsWith('.deleteSession')
}
