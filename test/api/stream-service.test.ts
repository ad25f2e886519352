import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { rename } from 'node:fs/promises'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import { type Subscriber } from '../kit/subscriber.ts'
import { opsAfter, opsOf, Streaming } from './stream-readers.ts'

setDefaultTimeout(60_000)

let streaming: Streaming

beforeAll(async () => {
  const names = ['alice', 'bob', 'carol', 'leaver', 'idler', 'broken', 'both']
  const people = Object.fromEntries(
    names.map((name) => [name, name === 'both' ? ['a', 'b'] : ['a']]),
  )
  streaming = await Streaming.start(people)
})
afterAll(async () => {
  await streaming?.[Symbol.asyncDispose]()
})

describe('cursors are refused', () => {
  test.each([
    ['that are no JSON', '{'],
    ['of somebody without a DID', { cursors: { alice: 1 }, more: false }],
    ['that are too many', JSON.stringify({ cursors: {}, more: true }).padEnd(1_000_000)],
  ])('%s', async (_, message) => {
    using reader = await streaming.open({ commits: true })
    // One of these is good, 64 MiB of them are not.
    for (let sent = 0; sent < 70; sent++) reader.say(message)
    expect(await reader.end()).toEqual([1008, 'InvalidRequest'])
    expect(reader.told).toMatchObject([{ type: 'error', body: { error: 'InvalidRequest' } }])
  })

  test('in a binary message', async () => {
    using reader = await streaming.open({ commits: true })
    reader.socket.send(new TextEncoder().encode('{"cursors": {}, "more": false}'))
    expect(await reader.end()).toEqual([1008, 'InvalidRequest'])
  })

  test('in a message of more than a mebibyte, without being kept', async () => {
    using reader = await streaming.open({ commits: true })
    reader.say('x'.repeat(1_100_000))
    const [code] = await reader.end()
    expect([1006, 1008, 1009]).toContain(code)
    expect(reader.bodies('#enrollment')).toEqual([])
  })

  test('after the last of them', async () => {
    using reader = await streaming.following()
    await reader.message('#enrollment')
    reader.say({ cursors: {}, more: false })
    expect(await reader.end()).toEqual([1008, 'InvalidRequest'])
  })

  test('past the end, by the name of whose they are', async () => {
    using reader = await streaming.following({ [streaming.did('alice')]: Date.now() * 2_000 })
    expect(await reader.end()).toEqual([1008, 'FutureCursor'])
    expect(reader.bodies('error')[0]?.['message']).toContain(streaming.did('alice'))
  })
})

test('a stream of one repo, or of enrollments, takes no messages', async () => {
  for (const params of [{ did: streaming.did('alice') }, {}]) {
    using reader = await streaming.open(params)
    reader.say({ cursors: {}, more: false })
    expect(await reader.end()).toEqual([1008, 'InvalidRequest'])
  }
})

test('nothing is sent before the last of the cursors', async () => {
  using reader = await streaming.open({ commits: true })
  reader.say({ cursors: {}, more: true })
  await streaming.write('alice', 'early')
  expect(reader.told).toEqual([])
  reader.say({ cursors: {}, more: false })
  await reader.message('#enrollment')
})

describe('enrollments', () => {
  test('come as they stand, and then as they change, without a commit', async () => {
    using reader = await streaming.open({})
    await reader.until('everybody', () =>
      reader.bodies('#enrollment').length === 7 ? 1 : undefined,
    )
    const { stratos } = streaming
    expect(last(reader, 'both')).toMatchObject({
      did: streaming.did('both'),
      action: 'enroll',
      service: stratos.url,
      boundaries: [stratos.boundary('a'), stratos.boundary('b')],
    })
    await streaming.write('both', 'unseen')
    await stratos.setBoundaries('both', ['b', 'c'])
    const changed = await reader.message('#enrollment', ({ boundaries }) =>
      Bun.deepEquals(boundaries, [stratos.boundary('b'), stratos.boundary('c')]),
    )
    expect(changed).toMatchObject({ did: streaming.did('both'), action: 'enroll' })
    expect(Number(changed['seq'])).toBeGreaterThan(Number(reader.bodies('#enrollment')[0]?.['seq']))
    await reader.message('#info', ({ name }) => name === 'Heartbeat')
    expect(reader.commits).toEqual([])
    await stratos.setBoundaries('both', ['a', 'b'])
  })

  test('are told an AppView within its grant', async () => {
    using reader = await streaming.open({}, await streaming.token(streaming.ofA))
    await reader.until('both', () => last(reader, 'both'))
    expect(last(reader, 'both')?.['boundaries']).toEqual([streaming.stratos.boundary('a')])
  })
})

describe('the commits of everybody', () => {
  test('follow the enrollment of each, in order, from where the reader is', async () => {
    await streaming.write('alice', 'a1')
    await streaming.write('bob', 'b1')
    using first = await streaming.following()
    const end = await first.until('both', () => seqOf(first, 'alice', 'a1'))
    await streaming.write('alice', 'a2')
    await streaming.write('bob', 'b2')
    const written = Date.now()
    using reader = await streaming.following({ [streaming.did('alice')]: end })
    const ops = await reader.until('all', () =>
      opsOf(reader).includes('create b2 +') && opsOf(reader).includes('create a2 +')
        ? opsOf(reader)
        : undefined,
    )
    expect(ops).not.toContain('create a1 +')
    const told = await reader.message('#info', ({ time }) => typeof time === 'string')
    expect(Date.parse(String(told['time']))).toBeGreaterThanOrEqual(written)
    for (const name of ['alice', 'bob']) {
      const did = streaming.did(name)
      const mine = reader.told.filter(({ body }) => body['did'] === did)
      expect(mine[0]?.type).toBe('#enrollment')
      const seqs = mine.slice(1).map(({ body }) => Number(body['seq']))
      expect(seqs).toEqual(seqs.toSorted((left, right) => left - right))
      expect(new Set(seqs).size).toBe(seqs.length)
    }
  })

  test('go on as they happen', async () => {
    using reader = await streaming.following()
    await reader.message('#info', ({ name }) => name === 'Heartbeat')
    const before = opsOf(reader).length
    for (const name of ['alice', 'bob', 'carol']) await streaming.write(name, `live-${name}`)
    expect((await opsAfter(reader, before + 3)).slice(before)).toEqual([
      'create live-alice +',
      'create live-bob +',
      'create live-carol +',
    ])
  })

  test('of whoever leaves end with their leaving, also where nothing of them is left at once', async () => {
    await streaming.write('leaver', 'l1')
    using reader = await streaming.following()
    await reader.until('l1', () => seqOf(reader, 'leaver', 'l1'))
    await streaming.leave('leaver')
    const left = await reader.message('#enrollment', ({ action }) => action === 'unenroll')
    expect(left).toMatchObject({ did: streaming.did('leaver'), boundaries: [] })
    const end = reader.told.findLast(({ body }) => body['did'] === streaming.did('leaver'))
    expect(end?.type).toBe('#enrollment')
    // The stream of all others goes on.
    await streaming.write('alice', 'after-leaver')
    await reader.until('others', () => seqOf(reader, 'alice', 'after-leaver'))
  })

  test('name whoever left while the reader was away', async () => {
    const gone = streaming.did('leaver')
    const never = streaming.did('stranger')
    using reader = await streaming.following({ [gone]: 1, [never]: 1 })
    for (const did of [gone, never]) {
      await reader.message(
        '#enrollment',
        (one) => one['did'] === did && one['action'] === 'unenroll',
      )
    }
  })

  test('begin anew for whoever is active again, after they were told to be gone', async () => {
    const did = streaming.did('idler')
    await streaming.write('idler', 'i1')
    const setActive = (active: number) =>
      whileStopped(
        streaming.stratos,
        async (sql) => {
          const action = active === 1 ? 'enroll' : 'unenroll'
          await sql.run([
            { sql: 'update enrollment set active = $2 where did = $1', args: [did, active] },
            {
              sql: 'insert into service_event (did, action, time) values ($1, $2, $3)',
              args: [did, action, new Date().toISOString()],
            },
          ])
        },
        { STRATOS_ALLOWED_APPVIEWS: `${streaming.ofAll.did},${streaming.ofA.did}=a` },
      )
    await setActive(0)
    using away = await streaming.following({ [did]: 1 })
    await away.message('#enrollment', (one) => one['did'] === did && one['action'] === 'unenroll')
    await setActive(1)
    using back = await streaming.following()
    await back.until('i1', () => seqOf(back, 'idler', 'i1'))
  })

  test('of one whose log cannot be read are said to be missing, and come once it can', async () => {
    const did = streaming.stratos.person('broken').did
    await streaming.write('broken', 'x1')
    const folder = actorFolder(streaming.stratos.dataFolder, did)
    await streaming.stratos.terminate()
    await rename(folder, `${folder}-away`)
    await streaming.run()
    using reader = await streaming.following()
    await reader.message('#info', (one) => one['name'] === 'RepoUnavailable' && one['did'] === did)
    await streaming.write('alice', 'beside-broken')
    await reader.until('others', () => seqOf(reader, 'alice', 'beside-broken'))
    await rename(`${folder}-away`, folder)
    await reader.until('x1', () => seqOf(reader, 'broken', 'x1'))
    expect(reader.bodies('#info').filter(({ name }) => name === 'RepoUnavailable')).not.toBeEmpty()
    expect(streaming.stratos.log).toContain('stream.actor.failed')
  })

  test('are for an AppView of one boundary what is in it', async () => {
    const authorization = await streaming.token(streaming.ofA)
    using reader = await streaming.following({}, authorization)
    await streaming.write('both', 'moving', { in: ['b'] })
    await streaming.write('both', 'moving', { text: 'second', in: ['a', 'b'] })
    await streaming.write('both', 'hidden', { in: ['b'] })
    await streaming.write('both', 'moving', { text: 'third', in: ['b'] })
    await streaming.write('both', 'end')
    await reader.until('end', () => seqOf(reader, 'both', 'end'))
    const did = streaming.did('both')
    const isNew = ({ path }: { readonly path: string }) => !path.endsWith('/unseen')
    const mine = reader.commits.filter((one) => one.did === did && one.ops.some(isNew))
    expect(
      mine.map(({ ops }) => ops.map(({ action, path }) => `${action} ${path.split('/')[1]}`)),
    ).toEqual([['create moving'], ['delete moving'], ['create end']])
    expect(JSON.stringify(reader.told)).not.toContain('hidden')
  })
})

function last(reader: Subscriber, name: string) {
  const did = streaming.did(name)
  return reader.bodies('#enrollment').findLast((one) => one['did'] === did)
}

/** Of the commit that wrote a record. */
function seqOf(reader: Subscriber, name: string, rkey: string): number | undefined {
  const did = streaming.did(name)
  const isIt = ({ path }: { readonly path: string }) => path.endsWith(`/${rkey}`)
  return reader.commits.find((one) => one.did === did && one.ops.some(isIt))?.seq
}
