import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Did, parseHandle } from '../../src/atproto/syntax.ts'
import { Authors } from '../../src/appview/authors.ts'
import { createLog } from '../../src/lib/log.ts'
import { FetchFailed } from '../../src/remote/fetch.ts'
import { Identities } from '../../src/remote/identity.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { Clock, Directory, loopbackFetch } from '../remote/directory.ts'

let directory: Directory
let clock: Clock
/** Where handles lead by DNS. */
let handles: Map<string, Did>
/** How DNS and the hosts of handles fail, where they do. */
let dnsFailure: string | undefined
let web: () => Response
let askedDns: number
let identities: Identities

beforeEach(() => {
  directory = new Directory()
  clock = new Clock()
  handles = new Map()
  dnsFailure = undefined
  web = () => new Response(null, { status: 404 })
  askedDns = 0
  identities = new Identities({
    plcUrl: directory.url,
    fetch: async (input, init) => {
      const { protocol } = new URL(input instanceof Request ? input.url : input)
      return protocol === 'https:' ? web() : await loopbackFetch(input, init)
    },
    now: clock.now,
    resolveTxt: async (name) => {
      askedDns += 1
      const did = handles.get(name.replace('_atproto.', ''))
      const code = did === undefined ? 'ENOTFOUND' : dnsFailure
      if (code !== undefined) throw Object.assign(new Error('DNS'), { code })
      return [[`did=${did}`]]
    },
  })
})
afterEach(async () => {
  await directory[Symbol.asyncDispose]()
})

function authors(waitMs = 10_000): Authors {
  const log = createLog('silent', () => undefined)
  return new Authors({ identities, now: clock.now, log, waitMs })
}

async function handlesOf(all: Authors, ...dids: Did[]): Promise<(string | undefined)[]> {
  const found = await all.handlesOf(new Set(dids))
  return dids.map((did) => found.get(did))
}

test('nobody is shown by a handle that leads elsewhere, or by none', async () => {
  const [ann, eve, nobody] = [
    directory.add({ handle: 'ann.example' }),
    directory.add({ handle: 'ann.example' }),
    directory.add({}),
  ]
  handles.set('ann.example', ann)
  expect(await handlesOf(authors(), ann, eve, nobody)).toEqual([
    'ann.example',
    'handle.invalid',
    'handle.invalid',
  ])
})

test('an account whose document cannot be had is shown without a handle', async () => {
  directory.broken = { status: 500 }
  expect(await handlesOf(authors(), directory.add({ handle: 'ann.example' }))).toEqual([
    'handle.invalid',
  ])
})

test('what is known is not asked for again, what failed after a minute', async () => {
  const [ann, ben] = [directory.add({ handle: 'ann.example' }), directory.add({})]
  handles.set('ann.example', ann)
  const all = authors()
  await handlesOf(all, ann, ben)
  const asked = directory.asked.length
  clock.ms += 59_000
  expect(await handlesOf(all, ann, ben)).toEqual(['ann.example', 'handle.invalid'])
  expect(directory.asked).toHaveLength(asked)
})

test('a page of many authors has all of their handles', async () => {
  const dids = Array.from({ length: 100 }, (_, index) => {
    const handle = `p${index}.example`
    const did = directory.add({ handle })
    handles.set(handle, did)
    return did
  })
  const all = authors()
  const found = await Promise.all([handlesOf(all, ...dids), handlesOf(all, ...dids.toReversed())])
  const names = dids.map((_, index) => `p${index}.example`)
  expect(found).toEqual([names, names.toReversed()])
  expect(new Set(directory.asked).size).toBe(directory.asked.length)
})

test('nobody waits for a directory that hangs, and the next answer has the handle', async () => {
  const gate = Promise.withResolvers<void>()
  directory.gate = gate.promise
  const did = directory.add({ handle: 'ann.example' })
  handles.set('ann.example', did)
  const all = authors(1)
  expect(await handlesOf(all, did)).toEqual(['handle.invalid'])
  gate.resolve()
  await identities.handle(did)
  const patient = authors()
  expect(await handlesOf(patient, did)).toEqual(['ann.example'])
})

test('an older handle is shown while it is looked up anew', async () => {
  const did = directory.add({ handle: 'old.example' })
  handles.set('old.example', did).set('new.example', did)
  const all = authors()
  await handlesOf(all, did)
  directory.accounts.set(did, { handle: 'new.example' })
  clock.ms += 5 * 60_000 + 1
  expect(await handlesOf(all, did)).toEqual(['old.example'])
  await eventually('newer handle', async () => {
    const [handle] = await handlesOf(all, did)
    return handle === 'new.example' ? true : undefined
  })
})

describe('a handle that was found', () => {
  const minute = 60_000
  let did: Did
  let all: Authors

  beforeEach(async () => {
    did = directory.add({ handle: 'ann.example' })
    handles.set('ann.example', did)
    all = authors()
    expect(await handlesOf(all, did)).toEqual(['ann.example'])
    // A document is remembered for an hour where it cannot be had anew.
    clock.ms += 61 * minute
  })

  const ends: [string, () => void][] = [
    ['its document names another', () => void directory.accounts.set(did, { handle: 'b.example' })],
    ['its document names none', () => void directory.accounts.set(did, {})],
    ['its document is gone', () => void directory.accounts.delete(did)],
    ['it leads to another', () => void handles.set('ann.example', rival())],
    ['it leads to whom names another', () => void handles.set('ann.example', directory.add({}))],
    ['DNS and its host know of none', () => void handles.delete('ann.example')],
    [
      'its document names another that cannot be looked up',
      () => {
        directory.accounts.set(did, { handle: 'b.example' })
        web = () => new Response(null, { status: 503 })
      },
    ],
  ]
  test.each(ends)('is shown no more where %s', async (_, end) => {
    end()
    await shownNoMore()
  })

  const silences: [string, () => void][] = [
    ['the directory', () => void (directory.broken = { status: 500 })],
    ['DNS', () => void (dnsFailure = 'ETIMEOUT')],
    [
      'its host',
      () => {
        handles.delete('ann.example')
        web = () => {
          throw new FetchFailed('ann.example', 'no answer')
        }
      },
    ],
    [
      'its host, which is in trouble,',
      () => {
        handles.delete('ann.example')
        web = () => new Response(null, { status: 503 })
      },
    ],
  ]
  test.each(silences)('is shown while %s says nothing, for a day', async (_, fall) => {
    fall()
    for (const waitMs of [0, minute, minute]) {
      clock.ms += waitMs
      await lookedUp()
      expect(await handlesOf(all, did)).toEqual(['ann.example'])
    }
    clock.ms += 24 * 60 * minute
    expect(await handlesOf(all, did)).toEqual(['handle.invalid'])
  })

  test('is looked up again after a minute where nobody said anything', async () => {
    dnsFailure = 'ETIMEOUT'
    await lookedUp()
    dnsFailure = undefined
    handles.set('ann.example', rival())
    clock.ms += minute - 1
    const asked = askedDns
    await handlesOf(all, did)
    expect(askedDns).toBe(asked)
    clock.ms += 1
    await shownNoMore()
  })

  function rival(): Did {
    return directory.add({ handle: 'ann.example' })
  }

  async function shownNoMore(): Promise<void> {
    await eventually('end of the handle', async () => {
      const [handle] = await handlesOf(all, did)
      return handle === 'handle.invalid' ? true : undefined
    })
  }

  /** Asks for the handle, and waits until that look-up has ended. */
  async function lookedUp(): Promise<void> {
    const asked = () => directory.asked.length + askedDns
    const before = asked()
    await handlesOf(all, did)
    await eventually('look-up', () => (asked() > before ? true : undefined))
    // Who comes later waits for the same one, and then for what is done with it.
    await failureOf(identities.handle(did))
    await failureOf(identities.resolveHandle(parseHandle('ann.example')))
    await Bun.sleep(0)
  }
})
