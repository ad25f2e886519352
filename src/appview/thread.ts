import type { PostRow, PostView } from './post.ts'
import type { ThreadRows } from './thread-query.ts'

/** @see lexicon zone.stratos.feed.defs */
export interface ThreadView {
  readonly $type: 'zone.stratos.feed.defs#threadViewPost'
  readonly post: PostView
  /** Undefined, which JSON leaves out, at the top and where the answer ends. */
  readonly parent?: ThreadView | NotFound | undefined
  /** Undefined in posts above. */
  readonly replies?: readonly ThreadView[] | undefined
}

export interface NotFound {
  readonly $type: 'zone.stratos.feed.defs#notFoundPost'
  readonly uri: string
  readonly notFound: true
}

export function postsOf({ anchor, above, below }: ThreadRows): PostRow[] {
  return [anchor, ...above.map(({ post }) => post), ...below.map(({ post }) => post)].filter(
    (post) => post !== undefined,
  )
}

/** The thread around `uri`. A post is in it once, also where replies go round in a circle. */
export function threadView(
  { anchor, above, below }: ThreadRows,
  { uri, view }: { readonly uri: string; readonly view: (post: PostRow) => PostView },
): ThreadView | NotFound {
  if (anchor === undefined) return notFound(uri)
  const placed = new Set([anchor.uri])
  const chain: (PostRow | string)[] = []
  for (const { uri, post } of above) {
    if (placed.has(uri)) break
    placed.add(uri)
    chain.push(post ?? uri)
  }
  const parent = chain.reduceRight<ThreadView | NotFound | undefined>(
    (parent, post) =>
      typeof post === 'string' ? notFound(post) : { $type: threadType, post: view(post), parent },
    undefined,
  )
  const replies = new Map<string, ThreadView[]>([[anchor.uri, []]])
  for (const { parent, post } of below) {
    const siblings = replies.get(parent)
    if (siblings === undefined || placed.has(post.uri)) continue
    placed.add(post.uri)
    const own: ThreadView[] = []
    replies.set(post.uri, own)
    siblings.push({ $type: threadType, post: view(post), replies: own })
  }
  return { $type: threadType, post: view(anchor), parent, replies: replies.get(anchor.uri) }
}

const threadType = 'zone.stratos.feed.defs#threadViewPost'

function notFound(uri: string): NotFound {
  return { $type: 'zone.stratos.feed.defs#notFoundPost', uri, notFound: true }
}
