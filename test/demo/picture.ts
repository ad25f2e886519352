import { type BlobRef, blobRefOf, picture, picturePost } from '../kit/blob.ts'
import type { Account } from '../kit/network.ts'
import { addressOf, postCollection } from '../kit/post.ts'
import { eventually } from '../kit/wait.ts'
import { fieldsOf, textOf, xrpcResponse } from '../kit/xrpc.ts'
import type { Stage } from './story.ts'

const getBlob = 'zone.stratos.sync.getBlob'
const caption = 'The box that we ship on Tuesday.'
/** The CID of bytes that were never uploaded. */
const never = 'bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku'

/** What the story goes on with. */
export interface Picture {
  readonly uri: string
  /** The address that was made for bob. */
  readonly link: string
}

export async function alicesPicture(stage: Stage): Promise<Picture> {
  const { report, stratos, alice, bob, carol } = stage
  report.heading('Alice posts a picture for engineering')
  const bytes = picture(100_000)
  const uploaded = await stratos.callAs(alice, 'zone.stratos.repo.uploadBlob', {
    body: bytes,
    headers: { 'content-type': 'image/png' },
  })
  report.statement('alice uploads it to Stratos', uploaded.status === 200, uploaded)
  const blob = blobRefOf(fieldsOf(uploaded.body, 'blob'))
  const early = await askAs(stage, bob, blob)
  report.statement('before a post names it nobody gets it', early.status === 404, early)
  const record = picturePost(caption, [stratos.boundary('engineering')], blob)
  const answer = await stratos.callAs(alice, 'zone.stratos.repo.createRecord', {
    input: { repo: alice.did, collection: postCollection, record },
  })
  report.statement('alice writes a post with it', answer.status === 200, answer)
  const uri = textOf(answer.body, 'uri')
  const seen = await askAs(stage, bob, blob)
  const isSame = seen.status === 200 && seen.bytes.equals(bytes)
  report.statement('bob gets the picture, byte for byte', isSame, seen)
  const hidden = await askAs(stage, carol, blob)
  const absent = await askAs(stage, carol, { ...blob, ref: { $link: never } })
  const isHidden = hidden.status === 404 && Bun.deepEquals(hidden, absent)
  report.statement('carol is told what she is told of one that never was', isHidden, [
    hidden,
    absent,
  ])
  const link = await linkFor(stage, bob, blob)
  report.show(`<img src="${link.slice(0, 96)}...">`)
  const shown = await fetch(link)
  const isShown = shown.status === 200 && Buffer.from(await shown.bytes()).equals(bytes)
  report.statement('a page shows it to bob by an address that is good for minutes', isShown, link)
  await nothingOnThePds(stage, uri)
  return { uri, link }
}

export async function linkIsDead({ report }: Stage, { link }: Picture): Promise<void> {
  const { status } = await fetch(link)
  report.statement('and the address of the picture that was made for him is dead', status === 404, {
    status,
  })
}

async function nothingOnThePds({ report, network, alice }: Stage, uri: string): Promise<void> {
  const stub = await eventually('stub', () => network.getRecord(addressOf(uri)))
  const listed = await xrpcResponse(network.pdsUrl, 'com.atproto.sync.listBlobs', {
    params: { did: alice.did },
  })
  const body: unknown = await listed.json()
  const isClean = !('embed' in stub.value) && Bun.deepEquals(body, { cids: [] })
  report.statement('her PDS has no blob of hers, and the stub names none', isClean, [stub, body])
}

/** As somebody of the story, with a token from their PDS. */
async function askAs({ network, stratos, alice }: Stage, account: Account, { ref }: BlobRef) {
  const token = await network.serviceAuth(account, { aud: stratos.did, lxm: getBlob })
  const response = await xrpcResponse(stratos.url, getBlob, {
    params: { did: alice.did, cid: ref.$link },
    authorization: `Bearer ${token}`,
  })
  return { status: response.status, bytes: Buffer.from(await response.bytes()) }
}

async function linkFor({ stratos, alice }: Stage, account: Account, { ref }: BlobRef) {
  const params = { did: alice.did, cid: ref.$link }
  const { body } = await stratos.callAs(account, 'zone.stratos.sync.getBlobUrl', { params })
  return textOf(body, 'url')
}
