import { listOf, textOf } from './xrpc.ts'

export const postCollection = 'zone.stratos.feed.post'
export const enrollmentCollection = 'zone.stratos.actor.enrollment'

/** A private post as a client writes it. */
export function privatePost(text: string, boundaries: readonly string[]) {
  return {
    $type: postCollection,
    text,
    boundary: {
      $type: 'zone.stratos.boundary.defs#Domains',
      values: boundaries.map((value) => ({ value })),
    },
    createdAt: new Date().toISOString(),
  }
}

/** An AT-URI's parts, as the parameters of `getRecord`. */
export function addressOf(uri: string) {
  const [repo = '', collection = '', rkey = ''] = uri.replace('at://', '').split('/')
  return { repo, collection, rkey }
}

/** The texts of the posts on a page of `listRecords`. */
export function textsOf(body: Readonly<Record<string, unknown>>): string[] {
  return listOf(body, 'records').map((record) => {
    const [value] = listOf({ one: [record['value']] }, 'one')
    return textOf(value ?? {}, 'text')
  })
}
