import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { ServiceKey, SigningKey } from '../../src/atproto/keys.ts'
import { attest } from '../../src/service/attestation.ts'
import { enrolled } from '../kit/enroll.ts'
import { type Account, Network, type PublicRecord } from '../kit/network.ts'
import { addressOf, enrollmentCollection, postCollection, privatePost } from '../kit/post.ts'
import { Stratos } from '../kit/stratos.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, listOf, textOf, xrpc } from '../kit/xrpc.ts'
import { type Checked, runVerify } from '../cli/verified.ts'
import { temporaryFolder } from '../store/temporary.ts'

// A first run installs packages, and starting a PDS takes seconds.
setDefaultTimeout(120_000)

const secret = 'the launch is on tuesday'
const credential = join(temporaryFolder(), 'credential')
let network: Network
let stratos: Stratos
let alice: Account

beforeAll(async () => {
  network = await Network.start()
  stratos = await Stratos.start({ network, domains: ['engineering', 'design'] })
  alice = await network.createAccount('alice')
  await enrolled(stratos, alice)
  for (let count = 0; count < 20; count++) {
    const record = privatePost(secret, [stratos.boundary('engineering')])
    const input = { repo: alice.did, collection: postCollection, record }
    const written = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', { input })
    expect(written).toMatchObject({ status: 200 })
  }
})
afterAll(async () => {
  await stratos?.stop()
  await network?.stop()
})

test('an export is what the account wrote, by its PDS and the service’s attestation', async () => {
  const { value } = await signpost()
  const checked = await verifyExport('--did', alice.did)
  expect(checked).toMatchObject({ code: 0, failed: [] })
  expect(checked.lines).toContain(`ok      DID document: ${alice.did} lives at ${alice.pdsUrl}`)
  expect(checked.lines).toContain(
    `ok      signature: of the commit by ${textOf(value, 'signingKey')}`,
  )
  expect(checked.lines).toContain('ok      contents: 20 present, 0 missing')
  expect(checked.lines.join()).not.toContain(secret)
})

test('so it is after boundaries have changed and the record was rewritten', async () => {
  const before = await signpost()
  await stratos.setBoundaries(alice.did, ['design'])
  await eventually('another record', async () =>
    (await signpost()).cid === before.cid ? undefined : true,
  )
  expect(await verifyExport()).toMatchObject({ code: 0, failed: [] })
})

test('a record that the PDS was made to change fails by what was changed', async () => {
  const { uri, value } = await signpost()
  const { signingKey } = value
  const forger = ServiceKey.generate()
  const stranger = SigningKey.generate().did
  const boundaries = listOf(value, 'boundaries').map((boundary) => textOf(boundary, 'value'))
  const claim = { did: alice.did, boundaries, signingKey: stranger }
  const own = fieldsOf(value, 'attestation')
  const changes: [object, string][] = [
    [{ signingKey: stranger }, 'attestation'],
    [{ boundaries: [] }, 'attestation'],
    [{ service: 'https://elsewhere.example.com' }, 'service'],
    [{ signingKey: stranger, attestation: attest(claim, forger) }, 'attestation'],
    [{ attestation: { ...attest(claim, forger), signingKey: own['signingKey'] } }, 'attestation'],
  ]
  for (const [change, failed] of changes) {
    await put(uri, { ...value, ...change })
    expect(await verifyExport()).toMatchObject({ code: 1, failed: [failed] })
  }
  await put(uri, { ...value, signingKey })
  expect(await verifyExport()).toMatchObject({ code: 0, failed: [] })
})

test('an account whose record is gone has nothing to go by', async () => {
  const { uri, value } = await signpost()
  const { repo, collection, rkey } = addressOf(uri)
  const answer = await asAlice('com.atproto.repo.deleteRecord', { repo, collection, rkey })
  expect(answer.status).toBe(200)
  expect(await verifyExport()).toMatchObject({ code: 1, failed: ['enrollment'] })
  await put(uri, value)
})

async function verifyExport(...more: readonly string[]): Promise<Checked> {
  const nsid = 'zone.stratos.sync.getRepo'
  const token = await network.serviceAuth(alice, { aud: stratos.did, lxm: nsid })
  await Bun.write(credential, `Bearer ${token}`)
  const url = `${stratos.url}/xrpc/${nsid}?did=${alice.did}`
  return await runVerify([url, '--authorization', credential, ...more], {
    STRATOS_PLC_URL: network.plcUrl,
  })
}

async function signpost(): Promise<PublicRecord> {
  const [record] = await eventually('enrollment record', async () => {
    const records = await network.listRecords(alice.did, enrollmentCollection)
    return records.length === 0 ? undefined : records
  })
  if (record === undefined) throw new Error('no record')
  return record
}

async function put(uri: string, record: Readonly<Record<string, unknown>>): Promise<void> {
  const input = { ...addressOf(uri), record, validate: false }
  expect((await asAlice('com.atproto.repo.putRecord', input)).status).toBe(200)
}

function asAlice(nsid: string, input: Readonly<Record<string, unknown>>) {
  return xrpc(network.pdsUrl, nsid, { input, authorization: `Bearer ${alice.accessJwt}` })
}
