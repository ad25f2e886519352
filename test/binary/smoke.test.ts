import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { Child } from '../kit/child.ts'
import { enrolled } from '../kit/enroll.ts'
import { type Account, Network } from '../kit/network.ts'
import { addressOf, postCollection, privatePost } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { textOf } from '../kit/xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const binary = fileURLToPath(new URL('../../dist/stratos', import.meta.url))
const isBuilt = existsSync(binary)
if (!isBuilt) console.log('dist/stratos is not built: its tests are skipped')

describe.skipIf(!isBuilt)('the built binary, started in an empty folder', () => {
  let folder: string
  let network: Network
  let stratos: Stratos
  let alice: Account

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'stratos-empty-'))
    network = await Network.start()
    const domains = ['engineering']
    stratos = await Stratos.start({ network, domains, command: [binary, 'serve'], cwd: folder })
    alice = await network.createAccount('alice')
  })

  afterAll(async () => {
    await stratos?.stop()
    await network?.stop()
    await rm(folder, { recursive: true, force: true })
  })

  test('prints its settings', async () => {
    const help = new Child({ command: [binary, 'help'], cwd: folder })
    expect(await help.exited).toBe(0)
    await eventually('list of settings', () =>
      help.output.includes('STRATOS_DATA_DIR') ? true : undefined,
    )
  })

  test('refuses a bad setting with one line that names it', async () => {
    const env = { STRATOS_PORT: 'many', STRATOS_DATA_DIR: folder }
    const child = new Child({ command: [binary, 'serve'], cwd: folder, env })
    expect(await child.exited).not.toBe(0)
    const lines = () => child.output.split('\n').filter((line) => line.includes('STRATOS_PORT'))
    expect(await eventually('line', () => (lines().length > 0 ? lines() : undefined))).toHaveLength(
      1,
    )
  })

  test('enrolls, writes, reads back, and delivers the stub', async () => {
    await enrolled(stratos, alice)
    const written = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', {
      input: {
        repo: alice.did,
        collection: postCollection,
        record: privatePost('from the binary', [stratos.boundary('engineering')]),
      },
    })
    expect(written).toMatchObject({ status: 200 })
    const params = addressOf(textOf(written.body, 'uri'))
    expect(await stratos.callAs(alice, 'zone.stratos.repo.getRecord', { params })).toMatchObject({
      status: 200,
      body: { value: { text: 'from the binary' } },
    })
    expect(await stratos.call('zone.stratos.repo.getRecord', { params })).toMatchObject({
      status: 404,
    })
    await eventually('stub', () => network.getRecord(params))
  })

  test('is looked after by itself', async () => {
    const env = {
      STRATOS_PORT: String(stratos.port),
      STRATOS_ADMIN_PASSWORD: stratos.adminPassword,
    }
    const command = [binary, 'admin', 'members', '--boundary', 'engineering']
    const admin = new Child({ command, cwd: folder, env })
    expect(await admin.exited).toBe(0)
    await eventually('line of alice', () => admin.output.includes(alice.did) || undefined)
  })

  test('verifies what it exports, by the word of the PDS', async () => {
    const nsid = 'zone.stratos.sync.getRepo'
    const token = await network.serviceAuth(alice, { aud: stratos.did, lxm: nsid })
    const credential = join(stratos.dataFolder, 'credential')
    await Bun.write(credential, `Bearer ${token}`)
    const url = `${stratos.url}/xrpc/${nsid}?did=${alice.did}`
    const command = [binary, 'verify', url, '--authorization', credential, '--did', alice.did]
    const env = { STRATOS_PLC_URL: network.plcUrl, STRATOS_ALLOW_PRIVATE_NETWORK: 'true' }
    const verify = new Child({ command, cwd: folder, env })
    expect(await verify.exited).toBe(0)
    await eventually('verdict', () => verify.output.includes('checks held') || undefined)
  })

  test('shows its page, with style and script', async () => {
    const page = await (await fetch(stratos.url)).text()
    const paths = new Set(page.match(/\/page\.(css|js|svg)\?v=\w+/g))
    expect(paths.size).toBe(3)
    for (const path of paths) {
      const file = await fetch(`${stratos.url}${path}`)
      expect(file.status).toBe(200)
      expect((await file.text()).length).toBeGreaterThan(200)
    }
  })

  test('ends in order on SIGTERM, and goes on with its data', async () => {
    expect(await stratos.terminate()).toBe(0)
    await stratos.run()
    const answer = await stratos.callAs(alice, 'zone.stratos.repo.listRecords', {
      params: { repo: alice.did, collection: postCollection },
    })
    expect(answer.body['records']).toHaveLength(1)
  })

  test('needs nothing around it and leaves nothing there', async () => {
    expect(await readdir(folder)).toEqual([])
  })
})
