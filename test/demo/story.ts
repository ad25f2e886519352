import { Secp256k1Keypair } from '@atproto/crypto'
import { verifyRepoCar } from '@atproto/repo'

import { enrolled } from '../kit/enroll.ts'
import type { Account, Network, PublicRecord } from '../kit/network.ts'
import {
  addressOf,
  enrollmentCollection,
  postCollection,
  privatePost,
  textsOf,
} from '../kit/post.ts'
import type { Stratos } from '../kit/stratos.ts'
import { eventually, failureOf } from '../kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import { alicesPicture, linkIsDead } from './picture.ts'
import type { Report } from './report.ts'
import { timelines } from './timeline.ts'

export const boundaries = ['engineering', 'design']

const secret = 'We launch on Tuesday. Tell nobody outside engineering.'
const getRecord = 'zone.stratos.repo.getRecord'
const listRecords = 'zone.stratos.repo.listRecords'
const getRepo = 'zone.stratos.sync.getRepo'

/** The running parts and the people: what every act works with. */
export interface Stage {
  readonly report: Report
  readonly network: Network
  readonly stratos: Stratos
  readonly alice: Account
  readonly bob: Account
  readonly carol: Account
}

/** Tells the whole story; what does not hold is in the report. @returns the post's URI */
export async function tell(stage: Stage): Promise<string> {
  const uri = await alicePosts(stage)
  await everybodyLooks(stage, uri)
  await aStrangerLooks(stage, uri)
  await forgedTokens(stage, uri)
  const picture = await alicesPicture(stage)
  await bobIsTakenOut(stage, uri)
  await linkIsDead(stage, picture)
  await alicesRepo(stage, [uri, picture.uri])
  await carolLeaves(stage)
  await timelines(stage, uri)
  return uri
}

/** Enrolls everybody over the real OAuth flow and puts them into their boundaries. */
export async function enter({ report, stratos, alice, bob, carol }: Stage): Promise<void> {
  await report.step('alice, bob and carol enroll, each by OAuth at the PDS', async () => {
    for (const account of [alice, bob, carol]) await enrolled(stratos, account)
  })
  await report.step('the operator puts them into boundaries', async () => {
    await stratos.setBoundaries(alice.did, ['engineering'])
    await stratos.setBoundaries(bob.did, ['engineering'])
    await stratos.setBoundaries(carol.did, ['design'])
  })
  report.say('engineering: alice, bob      design: carol')
}

async function alicePosts({ report, stratos, alice }: Stage): Promise<string> {
  report.heading('Alice writes a private post for engineering')
  const answer = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', {
    input: {
      repo: alice.did,
      collection: postCollection,
      record: privatePost(secret, [stratos.boundary('engineering')]),
    },
  })
  report.statement('alice writes it with a token from her PDS', answer.status === 200, answer)
  const uri = textOf(answer.body, 'uri')
  report.show(`"${secret}"\n${uri}`)
  return uri
}

async function everybodyLooks(stage: Stage, uri: string): Promise<void> {
  const { report, stratos, alice, bob, carol } = stage
  report.heading('Everybody asks Stratos for it')
  const params = addressOf(uri)
  const missing = { ...params, rkey: '3jzfcijpj2z2a' }
  for (const [name, account] of [
    ['alice, who wrote it', alice] as const,
    ['bob, of engineering too', bob] as const,
  ]) {
    const answer = await stratos.callAs(account, getRecord, { params })
    report.statement(`${name}, reads it`, showsSecret(answer), answer)
  }
  const hidden = await stratos.callAs(carol, getRecord, { params })
  const absent = await stratos.callAs(carol, getRecord, { params: missing })
  const same = sameBut(hidden, absent, [params.rkey, missing.rkey])
  report.statement('carol, of design, is told what she is told of a post that never was', same, [
    hidden,
    absent,
  ])
  const unnamed = await stratos.call(getRecord, { params })
  const unnamedAbsent = await stratos.call(getRecord, { params: missing })
  const sameUnnamed = sameBut(unnamed, unnamedAbsent, [params.rkey, missing.rkey])
  report.statement('so is an anonymous caller', sameUnnamed, [unnamed, unnamedAbsent])
  report.show(JSON.stringify(unnamed.body))

  const lists = await Promise.all(
    [alice, bob, carol].map((account) => listedFor(stage, account, params)),
  )
  const counts = [...lists, textsOf((await stratos.call(listRecords, { params })).body)]
  const asExpected = counts.map((list) => list.length).join() === '1,1,0,0'
  report.statement('lists show it to alice and bob only', asExpected, counts)
}

async function aStrangerLooks(stage: Stage, uri: string): Promise<void> {
  const { report, network, stratos, alice } = stage
  report.heading('A stranger reads the public records of alice on her PDS')
  const stub = await eventually('stub', () => network.getRecord(addressOf(uri)))
  report.say('The stub, at the key of the post:')
  report.show(JSON.stringify(stub.value, undefined, 2))
  const subject = fieldsOf(fieldsOf(stub.value, 'source'), 'subject')
  report.statement('it points to the post in Stratos', subject['uri'] === uri, stub)
  const text = JSON.stringify(stub)
  const tellsNothing = !text.includes(secret) && !text.includes('engineering')
  report.statement('it has neither text nor boundary', tellsNothing, stub)

  const enrollment = await currentEnrollment(stage)
  report.say('The enrollment record:')
  report.show(JSON.stringify(enrollment.value, undefined, 2))
  const values = listOf(enrollment.value, 'boundaries').map((entry) => entry['value'])
  const names = values.join() === stratos.boundary('engineering')
  report.statement('it names the service, her boundaries and her signing key', names, enrollment)
  const all = JSON.stringify([
    await network.listRecords(alice.did, postCollection),
    await network.listRecords(alice.did, enrollmentCollection),
  ])
  report.statement('the text is nowhere in these records', !all.includes(secret), all)
  report.say(
    'So a stranger learns that alice uses this service, which boundaries she is in, and that she\n' +
      'wrote a private post at that time; not what it says, nor to whom.',
  )
}

async function forgedTokens({ report, network, stratos, alice }: Stage, uri: string) {
  report.heading('Somebody forges a token of alice')
  const token = await network.serviceAuth(alice, { aud: stratos.did, lxm: getRecord })
  const signedPart = token.slice(0, token.lastIndexOf('.'))
  const key = await Secp256k1Keypair.create()
  const signature = Buffer.from(await key.sign(Buffer.from(signedPart))).toString('base64url')
  const read = (forged: string) =>
    stratos.call(getRecord, { params: addressOf(uri), authorization: `Bearer ${forged}` })
  const answer = await read(`${signedPart}.${signature}`)
  report.statement('signed by another key, it is refused', isRefusal(answer), answer)
  report.show(`${answer.status} ${JSON.stringify(answer.body)}`)
  const session = await read(alice.accessJwt)
  report.statement('so is the session token of her PDS', isRefusal(session), session)
  const bearer = await read(alice.did)
  report.statement('and so is her bare DID: no development mode', isRefusal(bearer), bearer)
}

async function bobIsTakenOut(stage: Stage, uri: string): Promise<void> {
  const { report, stratos, bob } = stage
  report.heading('Bob is taken out of engineering')
  const read = () => stratos.callAs(bob, getRecord, { params: addressOf(uri) })
  const before = await read()
  report.statement('bob still reads the post', showsSecret(before), before)
  await stratos.setBoundaries(bob.did, [])
  const after = await read()
  const isGone = after.status === 404 && after.body['error'] === 'RecordNotFound'
  report.statement('the very next time it is not found', isGone, after)
  const listed = await listedFor(stage, bob, addressOf(uri))
  report.statement('and is in no list of his', listed.length === 0, listed)
}

async function alicesRepo(stage: Stage, uris: readonly string[]): Promise<void> {
  const { report, network, stratos, alice } = stage
  report.heading('Alice exports her private repo and checks it with @atproto/repo')
  const token = await network.serviceAuth(alice, { aud: stratos.did, lxm: getRepo })
  const response = await xrpcResponse(stratos.url, getRepo, {
    params: { did: alice.did },
    authorization: `Bearer ${token}`,
  })
  const car = new Uint8Array(await response.arrayBuffer())
  const isCar = response.status === 200
  report.statement(`she gets a CAR of ${car.length} bytes`, isCar, response.status)
  const signingKey = textOf((await currentEnrollment(stage)).value, 'signingKey')
  const [verified] = await Promise.allSettled([verifyRepoCar(car, alice.did, signingKey)])
  const isVerified = verified.status === 'fulfilled'
  report.statement(
    'tree and commit signature verify by the key of her record',
    isVerified,
    verified,
  )
  const creates = isVerified ? verified.value.creates : []
  const paths = creates.map(({ collection, rkey }) => `${collection}/${rkey}`)
  const wanted = uris.map((uri) => uri.replace(`at://${alice.did}/`, ''))
  const isWhole = Bun.deepEquals(paths.toSorted(), wanted.toSorted())
  report.statement('it holds exactly her two posts', isWhole, paths)
  const other = (await Secp256k1Keypair.create()).did()
  const failure = await failureOf(verifyRepoCar(car, alice.did, other))
  report.statement('under any other key the check fails', failure instanceof Error, failure)
}

async function carolLeaves({ report, network, stratos, carol }: Stage): Promise<void> {
  report.heading('Carol leaves')
  const answer = await stratos.callAs(carol, 'zone.stratos.enrollment.unenroll', { input: {} })
  report.statement('she asks for it with a token that counts once', answer.status === 200, answer)
  const params = { did: carol.did }
  const { body } = await stratos.call('zone.stratos.enrollment.status', { params })
  report.statement('from then on she is not enrolled', body['enrolled'] === false, body)
  const look = async () => (await network.listRecords(carol.did, enrollmentCollection)).length
  const isClean = await eventually('clean PDS', async () => (await look()) === 0 || undefined)
  report.statement('and nothing in her public records speaks of it any more', isClean, undefined)
}

/** Alice's enrollment record, once it names the boundaries that the operator set. */
function currentEnrollment({ network, stratos, alice }: Stage): Promise<PublicRecord> {
  return eventually('enrollment record with her boundaries', async () => {
    const [record] = await network.listRecords(alice.did, enrollmentCollection)
    const wanted = stratos.boundary('engineering')
    const values = record === undefined ? [] : listOf(record.value, 'boundaries')
    return values.length === 1 && values[0]?.['value'] === wanted ? record : undefined
  })
}

async function listedFor({ stratos }: Stage, account: Account, at: ReturnType<typeof addressOf>) {
  const params = { repo: at.repo, collection: at.collection }
  return textsOf((await stratos.callAs(account, listRecords, { params })).body)
}

function showsSecret(answer: Answer): boolean {
  return answer.status === 200 && fieldsOf(answer.body, 'value')['text'] === secret
}

function isRefusal(answer: Answer): boolean {
  return answer.status === 401
}

/** Two refusals that differ in nothing but the key that was asked for. */
function sameBut(one: Answer, other: Answer, [key = '', otherKey = '']: string[]): boolean {
  const body = JSON.stringify(other.body).replaceAll(otherKey, key)
  return one.status === 404 && other.status === 404 && JSON.stringify(one.body) === body
}
