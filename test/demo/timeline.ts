import { enrolled } from '../kit/enroll.ts'
import type { Account } from '../kit/network.ts'
import { postCollection, privatePost } from '../kit/post.ts'
import { eventually } from '../kit/wait.ts'
import { type Answer, fieldsOf, listOf, textOf, xrpc } from '../kit/xrpc.ts'
import type { Stage } from './story.ts'

const getTimeline = 'zone.stratos.feed.getTimeline'
const ofDesign = 'The new logo is green.'

/** Bob is back in engineering, and Carol in design: each sees what is for them, and that alone. */
export async function timelines(stage: Stage, uri: string): Promise<void> {
  const { report, stratos, alice, bob, carol } = stage
  report.heading('Bob and Carol read their timelines, each through the PDS')
  await report.step('carol enrolls again, and writes for design', async () => {
    await enrolled(stratos, carol)
    await stratos.setBoundaries(carol.did, ['design'])
    await stratos.setBoundaries(bob.did, ['engineering'])
    const record = privatePost(ofDesign, [stratos.boundary('design')])
    const input = { repo: carol.did, collection: postCollection, record }
    await stratos.callAs(carol, 'zone.stratos.repo.createRecord', { input })
  })
  const bobs = await timelineWith(stage, bob, uri)
  const item = itemsOf(bobs).find((post) => post['uri'] === uri)
  const author = item === undefined ? {} : fieldsOf(item, 'author')
  report.statement('bob’s has the post of alice', item !== undefined, bobs)
  report.statement('under the name of alice', author['handle'] === alice.handle, bobs)
  const own = (post: Readonly<Record<string, unknown>>) =>
    fieldsOf(post, 'record')['text'] === ofDesign
  report.statement('and nothing of design', !itemsOf(bobs).some(own), bobs)
  report.show(itemsOf(bobs).map(lineOf).join('\n'))
  const carols = await timelineWith(stage, carol, carol.did)
  report.statement('carol’s has her own post', itemsOf(carols).some(own), carols)
  const isHidden = !JSON.stringify(carols.body).includes(alice.did)
  report.statement('and nothing of alice', carols.status === 200 && isHidden, carols)
  report.show(itemsOf(carols).map(lineOf).join('\n'))
}

/** What the PDS passes on, once there is a post whose URI has the text in it. */
async function timelineWith(
  { network, stratos }: Stage,
  account: Account,
  text: string,
): Promise<Answer> {
  return await eventually('post in the timeline', async () => {
    const answer = await xrpc(network.pdsUrl, getTimeline, {
      authorization: `Bearer ${account.accessJwt}`,
      headers: { 'atproto-proxy': `${stratos.did}#stratos_appview` },
    })
    const isThere = itemsOf(answer).some((post) => textOf(post, 'uri').includes(text))
    return isThere ? answer : undefined
  })
}

function itemsOf({ status, body }: Answer): Readonly<Record<string, unknown>>[] {
  return status === 200 ? listOf(body, 'feed').map((item) => fieldsOf(item, 'post')) : []
}

function lineOf(post: Readonly<Record<string, unknown>>): string {
  const handle = textOf(fieldsOf(post, 'author'), 'handle')
  return `${handle}: ${textOf(fieldsOf(post, 'record'), 'text')}`
}
