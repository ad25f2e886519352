import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { carType, importRepo, withCar } from '../kit/import.ts'
import { postCollection } from '../kit/post.ts'
import { sendRaw } from '../kit/raw.ts'
import { expectRefusal, type Refusal } from '../kit/refusal.ts'
import { repoSubject, setTakedown } from '../kit/takedown.ts'
import { serviceToken } from '../kit/token.ts'
import { eventually } from '../kit/wait.ts'
import { whileStopped } from '../kit/while-stopped.ts'
import type { Call } from '../kit/xrpc.ts'
import { Importers } from './importers.ts'

setDefaultTimeout(60_000)

const bytesMax = 1_048_576
const malformed: Refusal = [400, 'InvalidRequest']
const tooLarge: Refusal = [413, 'PayloadTooLarge']
const busy: Refusal = [503, 'Overloaded']

let importers: Importers

beforeAll(async () => {
  const names = ['alice', 'bob', 'carol', 'dan', 'eve', 'full', 'taken']
  importers = await Importers.start({
    people: Object.fromEntries(names.map((name) => [name, ['a']])),
    env: { STRATOS_IMPORT_MAX_BYTES: String(bytesMax), LOG_LEVEL: 'debug' },
  })
})
afterAll(async () => {
  await importers?.[Symbol.asyncDispose]()
})

describe('before any of it is read, and with nothing changed, a repo is refused', () => {
  test.each<[string, Call, Refusal]>([
    ['of nobody', {}, [401, 'AuthMissing']],
    ['by a bad token', { authorization: 'Bearer a.b.c' }, [401, 'InvalidToken']],
  ])('%s', async (_, call, refusal) => {
    const car = importers.repoOf('alice', 'one').car()
    const ask = () => importers.stratos.call(importRepo, withCar(car, call))
    expectRefusal(await importers.expectRefused('alice', refusal, ask), refusal)
  })

  test('of the operator, who is no person', async () => {
    const { stratos } = importers
    const call = withCar(importers.repoOf('alice', 'one').car(), {
      authorization: stratos.adminBasic,
    })
    const ask = () => stratos.call(importRepo, call)
    await importers.expectRefused('alice', [403, 'Forbidden'], ask)
  })

  test('by a token of before, twice, or older than five minutes; a bad type uses up none', async () => {
    const { stratos } = importers
    const now = Math.floor(Date.now() / 1000)
    const token = async (claims: object) => {
      const names = { aud: stratos.did, lxm: importRepo }
      const options = { claims: { jti: crypto.randomUUID(), ...claims } }
      return `Bearer ${await serviceToken(stratos.person('full'), names, options)}`
    }
    await importers.import('full', importers.repoOf('full', 'one'))
    const present: Refusal = [409, 'RepoAlreadyExists']
    const send = (authorization: string, type = carType) => {
      const headers = { 'content-type': type }
      return stratos.call(importRepo, withCar(new Uint8Array(9), { authorization, headers }))
    }
    expectRefusal(await send(await token({ jti: undefined })), [401, 'InvalidToken'])
    expectRefusal(await send(await token({ iat: now - 310, exp: now + 60 })), [401, 'ExpiredToken'])
    const once = await token({})
    expectRefusal(await send(once, 'application/json'), malformed)
    expectRefusal(await send(once), present)
    expectRefusal(await send(once), [401, 'InvalidToken'])
  })

  test('of somebody who is not enrolled', async () => {
    const car = importers.repoOf('stranger', 'one').car()
    const answer = await importers.send('stranger', car)
    expectRefusal(answer, [403, 'NotEnrolled'])
  })

  test('of somebody whose repo was taken down', async () => {
    const { stratos } = importers
    const subject = repoSubject(importers.did('taken'))
    await setTakedown(stratos, subject, { applied: true })
    const ask = () => importers.import('taken', importers.repoOf('taken', 'one'))
    await importers.expectRefused('taken', [403, 'RepoTakendown'], ask)
    await setTakedown(stratos, subject, { applied: false })
    expect(await ask()).toMatchObject({ status: 200 })
  })

  test.each([
    ['none', undefined],
    ['JSON', 'application/json'],
    ['bytes', 'application/octet-stream'],
    ['more than its name', `${carType}+gzip`],
    ['another one first', `text/plain, ${carType}`],
  ])('of the type %s', async (_, type) => {
    const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type }
    const body = importers.repoOf('alice', 'one').car()
    const ask = () => importers.stratos.callAs('alice', importRepo, { body, headers })
    await importers.expectRefused('alice', malformed, ask)
  })

  test('that is asked for instead of sent', async () => {
    const ask = () => importers.stratos.callAs('alice', importRepo)
    const answer = await importers.expectRefused('alice', [405, 'MethodNotAllowed'], ask)
    expect(answer.headers.get('allow')).toBe('POST')
  })

  test('into one that has records, and so is another within a day, until then', async () => {
    const { stratos } = importers
    const repo = importers.repoOf('bob', 'one', 'two')
    expect(await importers.import('bob', repo)).toMatchObject({ status: 200 })
    await importers.expectRefused('bob', [409, 'RepoAlreadyExists'], () =>
      importers.import('bob', repo),
    )
    for (const rkey of ['one', 'two']) {
      const input = { repo: importers.did('bob'), collection: postCollection, rkey }
      await stratos.callAs('bob', 'zone.stratos.repo.deleteRecord', { input })
    }
    const limited: Refusal = [429, 'RateLimitExceeded']
    const answer = await importers.expectRefused('bob', limited, () =>
      importers.import('bob', repo),
    )
    const seconds = Number(answer.headers.get('retry-after'))
    expect(seconds).toBeWithin(24 * 3600 - 60, 24 * 3600 + 1)
    // A failed one does not count, neither does one of nothing.
    const dan = importers.repoOf('dan', 'one')
    expect(await importers.send('dan', dan.car().slice(9))).toMatchObject({ status: 400 })
    expect(await importers.import('dan', importers.repo('dan'))).toMatchObject({
      status: 200,
      body: { imported: 0, rewritten: 0 },
    })
    expect(await importers.import('dan', dan)).toMatchObject({ status: 200 })
    await whileStopped(stratos, async (sql) => {
      const earlier = 'update import set "importedAtMs" = "importedAtMs" - $1 where did = $2'
      await sql.run([{ sql: earlier, args: [24 * 3_600_000, importers.did('bob')], rows: 1 }])
    })
    expect(await importers.import('bob', repo)).toMatchObject({ status: 200 })
  })
})

describe('a body is refused', () => {
  const padded = (bytes: number) => new Uint8Array(bytes)
  const inPieces = (bytes: Uint8Array) => {
    let at = 0
    return new ReadableStream({
      pull: (controller) => {
        if (at >= bytes.length) return controller.close()
        controller.enqueue(bytes.subarray(at, (at += 100_000)))
      },
    })
  }

  test('that is too large, with its length and without', async () => {
    for (const body of [padded(bytesMax + 1), inPieces(padded(bytesMax + 1))]) {
      await importers.expectRefused('alice', tooLarge, () => importers.send('alice', body))
    }
    // One byte less is read.
    for (const body of [padded(bytesMax), inPieces(padded(bytesMax))]) {
      const ask = () => importers.send('alice', body)
      await importers.expectRefused('alice', [400, 'InvalidCar'], ask)
    }
  })

  test('that is too large by its length alone, and the connection goes on behind it', async () => {
    const { port } = importers.stratos
    const body = async (answer: () => string) => {
      await eventually('answer', () => (answer().endsWith('}') ? true : undefined), { everyMs: 5 })
      expect(answer()).toStartWith('HTTP/1.1 413 ')
      return 'x'.repeat(bytesMax + 1)
    }
    const next = 'GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
    const answer = await sendRaw(port, importers.head('alice', bytesMax + 1), body, next)
    expect(answer).toContain('{"ready":true}')
  })

  test('that is cut off in the middle, and the next one is read', async () => {
    const car = importers.repoOf('alice', 'one').car()
    const ask = async () => {
      const { socket } = await importers.begin('alice', car.length, car.subarray(0, -1))
      socket.destroy()
      return await eventually('next import', async () => {
        const answer = await importers.send('alice', car.subarray(0, -1))
        return answer.status === 503 ? undefined : answer
      })
    }
    await importers.expectRefused('alice', [400, 'InvalidCar'], ask)
  })
})

describe('of imports', () => {
  test('of one account there is one at once, of all together three', async () => {
    const car = importers.repoOf('alice', 'one').car()
    const first = await importers.begin('alice', car.length, car.subarray(0, 9))
    const again = await importers.expectRefused('alice', busy, () => importers.send('alice', car))
    expect(again.headers.get('retry-after')).toBe('1')
    const others = ['carol', 'eve'] as const
    const sockets = []
    for (const name of others)
      sockets.push((await importers.begin(name, 100, car.subarray(0, 9))).socket)
    const fourth = await importers.send('taken', car)
    expectRefusal(fourth, busy)
    for (const socket of sockets) socket.destroy()
    first.socket.write(car.subarray(9))
    expect(await first.answered).toStartWith('HTTP/1.1 200 ')
    first.socket.destroy()
    await eventually('room', () => (importers.uploads().length === 0 ? true : undefined))
    expect((await importers.send('carol', car)).body['error']).toBe('InvalidCar')
  })
})

test('neither tokens nor what was in a body are in the log', () => {
  expect(importers.stratos.log).toContain('import.done')
  expect(importers.stratos.log).not.toContain('eyJ')
})
