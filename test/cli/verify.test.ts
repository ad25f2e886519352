import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeCar } from '../../src/atproto/car.ts'
import { indexCar } from '../../src/atproto/car-index.ts'
import { encode } from '../../src/atproto/cbor.ts'
import { type CidBytes, cidForCbor, cidToString } from '../../src/atproto/cid.ts'
import { decodeCommit, signCommit } from '../../src/atproto/commit.ts'
import { SigningKey } from '../../src/atproto/keys.ts'
import { walkTree } from '../../src/atproto/mst-walk.ts'
import { Mst } from '../../src/atproto/mst.ts'
import { type Did, parseDid } from '../../src/atproto/syntax.ts'
import { MemorySource } from '../../src/lib/byte-source.ts'
import { runSteps } from '../../src/lib/steps.ts'
import { actorFolder } from '../../src/store/actor-folder.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { projectFolder, SeededStratos } from '../kit/seeded.ts'
import { recordSubject, setTakedown } from '../kit/takedown.ts'
import { fieldsOf, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { type Block, blockOf, repoLimits } from '../atproto/repo-car.ts'
import { temporaryFolder } from '../store/temporary.ts'
import { SignpostPds } from './signposts.ts'
import { type Checked, runVerify } from './verified.ts'

setDefaultTimeout(60_000)

const secret = 'the launch is on tuesday'
const folder = temporaryFolder()
const path = join(folder, 'export.car')
const pds = new SignpostPds()
let stratos: SeededStratos
let did: Did
let key: SigningKey
let exported: Exported

/** What the service exported, in its parts. */
interface Exported {
  readonly car: Uint8Array
  readonly commit: Block
  readonly tree: Mst
  readonly records: readonly (Block & { readonly key: string })[]
}

beforeAll(async () => {
  stratos = await SeededStratos.start({ people: { alice: ['a', 'b'] } })
  ;({ did } = stratos.person('alice'))
  for (let number = 0; number < 40; number++) {
    const record = privatePost(`${secret} ${number}`, [stratos.boundary('a')])
    const input = { repo: did, collection: postCollection, rkey: `post-${number}`, record }
    const { status } = await stratos.callAs('alice', 'zone.stratos.repo.createRecord', { input })
    expect(status).toBe(200)
  }
  key = SigningKey.import(
    readFileSync(join(actorFolder(stratos.dataFolder, did), 'signing_key'), 'utf8'),
  )
  exported = readExported(await exportOf())
  await Bun.write(path, exported.car)
  await signpost()
})
afterAll(async () => {
  await pds[Symbol.asyncDispose]()
  await stratos?.stop()
})

describe('an export that was tampered with fails by name:', () => {
  const stranger = SigningKey.generate()
  const forged = () => blockOf(encode({ $type: postCollection, text: 'forged' }))

  test.each<[string, readonly string[], () => Uint8Array]>([
    ['a bit in the header', ['hashes'], () => flipped(exported.car, 3)],
    ['a bit in the root that it names', ['commit'], () => flipped(exported.car, 30)],
    ['a bit in the commit', ['hashes'], () => flipped(exported.car, at(exported.commit))],
    ['a bit in a node', ['hashes'], () => flipped(exported.car, at(node(1)))],
    ['a bit in a record', ['hashes'], () => flipped(exported.car, at(exported.records[7]))],
    ['a bit in a CID', ['hashes'], () => flipped(exported.car, at(node(1)) - 10)],
    ['its last byte', ['hashes'], () => exported.car.subarray(0, -1)],
    ['its end', ['tree', 'contents'], () => car(exported.commit, [node(0)], [])],
    ['all but its header', ['commit'], () => exported.car.subarray(0, 59)],
    ['its commit', ['commit'], () => car(node(0), [], [])],
    ['its signature', ['signature'], () => withCommit(flipped(exported.commit.bytes, sigAt() + 9))],
    ['its rev', ['signature'], () => withCommit(changedRev())],
    [
      'its signer',
      ['signature'],
      () => withCommit(signed(exported.tree.rootCid(), stranger).bytes),
    ],
    ['its account', ['DID document'], () => withCommit(otherAccount())],
    [
      'a record more',
      ['signature'],
      () => withTree(exported.tree.set('a.b.c/x', forged().cid), stranger, [forged()]),
    ],
    ['a record less', ['signature'], () => withTree(exported.tree.delete(firstKey()), stranger)],
    [
      'another record in the place of one',
      ['signature'],
      () => withTree(exported.tree.set(firstKey(), forged().cid), stranger, [forged()]),
    ],
    [
      'a node that is missing',
      ['tree'],
      () => car(exported.commit, nodes().slice(0, -1), exported.records),
    ],
    [
      'a record that is missing',
      ['contents'],
      () => car(exported.commit, nodes(), exported.records.slice(1)),
    ],
    [
      'a record that is no CBOR',
      ['contents'],
      () =>
        withTree(exported.tree.set('a.b.c/x', blockOf(Uint8Array.of(0xff)).cid), key, [
          blockOf(Uint8Array.of(0xff)),
        ]),
    ],
    ['a tree of another form', ['tree'], raised],
    ['all of it', ['hashes'], () => new Uint8Array(1000)],
    ['nothing', ['hashes'], () => new Uint8Array()],
  ])('%s', async (_, failed, tampered) => {
    const checked = await checkBytes(tampered())
    expect(checked).toMatchObject({ failed, code: 1 })
    expectNoText(checked)
  })
})

describe('it ends with 1 for', () => {
  test('another account, and another key', async () => {
    const { did: other } = stratos.person('stranger')
    expect(await check('--did', other)).toMatchObject({ code: 1, failed: ['account'] })
    const strange = SigningKey.generate().did
    expect(await check('--key', strange)).toMatchObject({ code: 1, failed: ['signature'] })
  })

  test('an export without the content of a record that is taken down, unless in part', async () => {
    const { key: taken = '', cid = cidForCbor(exported.car) } = exported.records[3] ?? {}
    const subject = recordSubject({ uri: `at://${did}/${taken}`, cid: cidToString(cid) })
    await setTakedown(stratos, subject, { applied: true })
    const bytes = await exportOf()
    await setTakedown(stratos, subject, { applied: false })
    const whole = await checkBytes(bytes)
    expect(whole).toMatchObject({ code: 1, failed: ['contents'] })
    const part = await checkBytes(bytes, '--partial')
    expect(part.lines).toContain('ok      contents: 39 present, 1 missing')
    expect(part.code).toBe(0)
    expectNoText(whole, part)
  })

  test('an export of a part, unless a part is expected', async () => {
    const part = car(exported.commit, nodes().slice(0, 3), exported.records.slice(0, 5))
    expect(await checkBytes(part)).toMatchObject({ code: 1, failed: ['tree', 'contents'] })
    const { code, lines } = await checkBytes(part, '--partial')
    expect(lines.find((line) => line.includes('tree:'))).toMatch(/^ok .* subtrees? missing$/)
    expect(code).toBe(0)
  })
})

describe('the proof of a record', () => {
  const proof = (place: string, ...records: readonly Block[]) => {
    return car(exported.commit, exported.tree.proof(place), records)
  }

  test('that is there says so, with its content or at least its CID', async () => {
    const found = exported.records[11] ?? exported.commit
    const place = exported.records[11]?.key ?? ''
    const whole = await checkBytes(proof(place, found), '--record', place)
    expect(whole.lines.at(-2)).toMatch(/^ok +record: .* is there, bafyrei.*, its content present$/)
    expect(whole).toMatchObject({ code: 0, failed: [] })
    const without = proof(place)
    expect(await checkBytes(without, '--record', place)).toMatchObject({
      code: 1,
      failed: ['record'],
    })
    const inPart = await checkBytes(without, '--record', place, '--partial')
    expect(inPart.lines.at(-2)).toContain('its content missing')
    expect(inPart.code).toBe(0)
    expectNoText(whole)
  })

  test('that is not there says so', async () => {
    for (const place of [
      'a.b.c/x',
      `${postCollection}/post-3x`,
      'zz.zz.zz/zz',
      `${postCollection}/0`,
    ]) {
      const { code, lines } = await checkBytes(proof(place), '--record', place)
      expect(lines.at(-2)).toBe(`ok      record: ${place} is not there`)
      expect(code).toBe(0)
    }
  })

  test('shows nothing of others whose nodes are missing', async () => {
    const shown = exported.records.filter(({ key: place }) =>
      keysShownBy(firstKey()).includes(place),
    )
    expect(shown.length).toBeLessThan(exported.records.length)
    for (const { key: place } of exported.records) {
      const checked = await checkBytes(proof(firstKey()), '--record', place, '--partial')
      const isShown = shown.some(({ key: one }) => one === place)
      expect(checked).toMatchObject(isShown ? { code: 0 } : { code: 1, failed: ['record'] })
    }
    const root = car(exported.commit, [node(0)], [])
    const absent = `${postCollection}/post-3x`
    expect(await checkBytes(root, '--record', absent)).toMatchObject({
      code: 1,
      failed: ['record'],
    })
    const none = car(exported.commit, [], [])
    expect(await checkBytes(none, '--record', absent)).toMatchObject({
      code: 1,
      failed: ['record'],
    })
  })

  test('of another tree than the one that was signed is refused', async () => {
    const place = exported.records[11]?.key ?? ''
    const tree = exported.tree.delete(place)
    const forged = car(exported.commit, tree.proof(place), [])
    expect(await checkBytes(forged, '--record', place)).toMatchObject({
      code: 1,
      failed: ['record'],
    })
    const raisedTree = raised()
    expect(await checkBytes(raisedTree, '--record', place)).toMatchObject({
      code: 1,
      failed: ['tree'],
    })
  })

  test('is read from a whole export, too', async () => {
    const { code, lines } = await check('--record', firstKey())
    expect(lines.at(-2)).toContain(`${firstKey()} is there`)
    expect(code).toBe(0)
  })
})

describe('an export of the service itself holds', () => {
  test('by its file, with its key and with the attestation', async () => {
    const { code, lines, err } = await check()
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(lines).toContain('ok      contents: 40 present, 0 missing')
    expect(await check('--key', key.did, '--did', did)).toMatchObject({ code: 0 })
  })

  test('by its URL, with a credential from a file', async () => {
    const credential = join(folder, 'credential')
    await Bun.write(credential, `${stratos.person('alice').bearer}\n`)
    const url = `${stratos.url}/xrpc/zone.stratos.sync.getRepo?did=${did}`
    const checked = await checkFile(url, '--authorization', credential)
    expect(checked).toMatchObject({ code: 0, failed: [], err: '' })
    const without = await checkFile(url)
    expect(without).toMatchObject({ code: 2, lines: [] })
    expect(without.err).toContain('answered 401')
    expect(without.err).not.toContain(did)
  })

  test('by standard input, and by a pipe with a name, as a process', async () => {
    const name = `cat ${path} | ${process.execPath} src/main.ts verify - --key ${key.did}`
    expect(await shell(name)).toMatchObject({ code: 0, last: 'all 5 checks held' })
    const pipe = `${process.execPath} src/main.ts verify <(cat ${path}) --key ${key.did}`
    expect(await shell(pipe)).toMatchObject({ code: 0, last: 'all 5 checks held' })
    const cut = `head -c 3000 ${path} | ${process.execPath} src/main.ts verify - --key ${key.did}`
    expect(await shell(cut)).toMatchObject({ code: 1, last: '1 of 1 checks failed' })
  })
})

function checkFile(name: string, ...more: readonly string[]): Promise<Checked> {
  return runVerify([name, ...more], { STRATOS_PLC_URL: stratos.directory.url })
}

function check(...more: readonly string[]): Promise<Checked> {
  return checkFile(path, ...more)
}

async function checkBytes(bytes: Uint8Array, ...more: readonly string[]): Promise<Checked> {
  const file = join(folder, 'given.car')
  await Bun.write(file, bytes)
  return await checkFile(file, ...more)
}

async function shell(script: string): Promise<{ code: number; last: string | undefined }> {
  const child = Bun.spawn(['bash', '-c', script], { cwd: projectFolder, stdout: 'pipe' })
  const [code, out] = await Promise.all([child.exited, new Response(child.stdout).text()])
  return { code, last: out.trimEnd().split('\n').at(-1) }
}

function expectNoText(...checked: readonly Checked[]): void {
  for (const { lines, err } of checked) expect([...lines, err].join()).not.toContain(secret)
}

async function exportOf(): Promise<Uint8Array> {
  const call = { params: { did }, authorization: stratos.person('alice').bearer }
  const response = await xrpcResponse(stratos.url, 'zone.stratos.sync.getRepo', call)
  expect(response.status).toBe(200)
  return await response.bytes()
}

/** What enrollment puts on the PDS, of the service's own words. */
async function signpost(): Promise<void> {
  const nsid = 'zone.stratos.enrollment.status'
  const { body } = await stratos.callAs('alice', nsid, { params: { did } })
  pds.records.set(textOf(body, 'enrollmentRkey'), {
    $type: 'zone.stratos.actor.enrollment',
    service: stratos.url,
    boundaries: listOf(body, 'boundaries'),
    signingKey: textOf(body, 'signingKey'),
    attestation: fieldsOf(body, 'attestation'),
    createdAt: textOf(body, 'enrolledAt'),
  })
  stratos.directory.accounts.set(did, { ...stratos.directory.accounts.get(did), pds: pds.url })
}

function readExported(bytes: Uint8Array): Exported {
  const index = runSteps(indexCar(new MemorySource(bytes), repoLimits))
  const commit = { cid: index.root, bytes: index.rootBlock() }
  const { data } = decodeCommit(commit.bytes)
  const leaves = [...walkTree(data, (cid) => index.block(cid), repoLimits)]
  const tree = Mst.fromSorted(leaves.map(({ key, cid }) => [key, cid]))
  const records = leaves.map(({ key, cid }) => {
    return { key, cid, bytes: index.block(cid) ?? new Uint8Array() }
  })
  return { car: bytes, commit, tree, records }
}

function car(commit: Block, nodes: readonly Block[], records: readonly Block[]): Uint8Array {
  return encodeCar(commit.cid, [commit, ...nodes, ...records])
}

function nodes(): Block[] {
  return [...exported.tree.nodes()]
}

function node(index: number): Block {
  return nodes()[index] ?? exported.commit
}

function firstKey(): string {
  return exported.records[0]?.key ?? ''
}

function withCommit(bytes: Uint8Array): Uint8Array {
  return car(blockOf(bytes), nodes(), exported.records)
}

function signed(data: CidBytes, by: SigningKey): Block {
  return signCommit({ did, data, rev: decodeCommit(exported.commit.bytes).rev }, by)
}

function withTree(tree: Mst, by: SigningKey, more: readonly Block[] = []): Uint8Array {
  return car(signed(tree.rootCid(), by), [...tree.nodes()], [...exported.records, ...more])
}

/** A root without a record above the root, signed by the account's own key. */
function raised(): Uint8Array {
  const top = blockOf(encode({ e: [], l: { $link: cidToString(exported.tree.rootCid()) } }))
  return car(signed(top.cid, key), [top, ...nodes()], exported.records)
}

/** The leaves of the nodes on the way to a key. */
function keysShownBy(key: string): string[] {
  const way = exported.tree.proof(key).map(({ cid }) => cidToString(cid))
  const shown = [...exported.tree.nodes()].filter(({ cid }) => way.includes(cidToString(cid)))
  return shown.flatMap(({ leaves }) => leaves.map((leaf) => leaf.key))
}

function changedRev(): Uint8Array {
  const { bytes } = exported.commit
  const { rev } = decodeCommit(bytes)
  const last = Buffer.from(bytes).indexOf(rev) + rev.length - 1
  return bytes.with(last, bytes[last] === 0x32 ? 0x33 : 0x32)
}

function otherAccount(): Uint8Array {
  const { data, rev } = decodeCommit(exported.commit.bytes)
  return signCommit({ did: parseDid('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa'), data, rev }, key).bytes
}

function sigAt(): number {
  return Buffer.from(exported.commit.bytes).indexOf('csigX@', 0, 'latin1') + 6
}

/** Where the content of a block is in the export. */
function at(block: Block | undefined): number {
  return Buffer.from(exported.car).indexOf(block?.bytes ?? '') + 5
}

function flipped(bytes: Uint8Array, place: number): Uint8Array {
  return bytes.with(place, (bytes[place] ?? 0) ^ 1)
}
