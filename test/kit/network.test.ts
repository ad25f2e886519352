import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'

import { isNewEnough } from '../network/install.ts'
import { Child } from './child.ts'
import { publicHistory } from './firehose.ts'
import { Network } from './network.ts'
import { eventually, failureOf } from './wait.ts'
import { xrpc } from './xrpc.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

let network: Network

beforeAll(async () => {
  network = await Network.start()
})
afterAll(async () => {
  await network.stop()
})

test('an older Node does not run the PDS', () => {
  expect(['v20.20.2\n', 'v22.12.0\n', '', 'nonsense'].map(isNewEnough)).not.toContain(true)
  expect(['v22.13.0\n', 'v22.23.3\n', 'v24.0.0\n'].map(isNewEnough)).not.toContain(false)
})

test('the servers listen on loopback only', async () => {
  for (const url of [network.pdsUrl, network.plcUrl]) {
    // Another loopback address stands for every interface that is not 127.0.0.1.
    const elsewhere = `http://127.0.0.2:${new URL(url).port}/xrpc/_health`
    expect(await failureOf(fetch(elsewhere))).toBeInstanceOf(Error)
  }
})

test('a killed PDS refuses connections, and comes back with its accounts and records', async () => {
  const account = await network.createAccount('survivor')
  const record = { $type: 'org.example.note', text: 'kept' }
  const collection = 'org.example.note'
  const written = await xrpc(network.pdsUrl, 'com.atproto.repo.createRecord', {
    input: { repo: account.did, collection, rkey: 'first', record },
    authorization: `Bearer ${account.accessJwt}`,
  })
  expect(written.status).toBe(200)

  await network.killPds()
  const whileDown = network.listRecords(account.did, collection)
  expect(await failureOf(whileDown)).toBeInstanceOf(Error)
  await network.restartPds()

  const found = await network.listRecords(account.did, collection)
  expect(found.map(({ value }) => value)).toEqual([record])
  expect(await publicHistory(network, account.did)).toEqual([
    { action: 'create', path: `${collection}/first` },
  ])
  const claims = { aud: 'did:web:service.test', lxm: 'org.example.method' }
  expect(await network.serviceAuth(account, claims)).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/)
})

test('a child ends when its parent is killed', async () => {
  const { parent, childPid } = await parentOf(`{ command: ['cat'], cwd: '/', watchesStdin: true }`)
  await parent.kill()
  await eventually('end of the child', () => (isAlive(childPid) ? undefined : true))
})

test('a child that does not watch its input is killed when its parent is told to end', async () => {
  const { parent, childPid } = await parentOf(`{ command: ['sleep', '60'], cwd: '/' }`)
  await parent.stop()
  await eventually('end of the child', () => (isAlive(childPid) ? undefined : true))
})

/** Another process that has a child of its own. */
async function parentOf(childOptions: string) {
  const script = `
    const { Child } = await import(${JSON.stringify(`${import.meta.dir}/child.ts`)})
    console.log(new Child(${childOptions}).pid)
    await Bun.sleep(60_000)`
  const parent = new Child({ command: [process.execPath, '-e', script], cwd: '/' })
  return { parent, childPid: Number(await parent.firstLine(10_000)) }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
