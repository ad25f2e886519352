import { type AtUri, recordPlace } from '../atproto/syntax.ts'
import type { IndexArgument, IndexReads } from './index-reads.ts'
import { checkFresh, type PostRow } from './post.ts'
import {
  contentBytes,
  contentBytesMax,
  isVisible,
  type Viewer,
  viewerArgs,
  viewerTables,
} from './visible.ts'

/** @throws XrpcError 503 IndexStale */
export async function visiblePost(
  reads: IndexReads,
  { viewer, uri }: { readonly viewer: Viewer; readonly uri: AtUri },
): Promise<PostRow | undefined> {
  const { anchor } = await threadRows(reads, { viewer, uri, depth: 0, parentHeight: 0 })
  return anchor
}

export interface ThreadQuery {
  readonly viewer: Viewer
  readonly uri: AtUri
  /** Levels of replies. */
  readonly depth: number
  /** Posts above. */
  readonly parentHeight: number
}

export interface ThreadRows {
  /** Undefined where the viewer does not see it. */
  readonly anchor: PostRow | undefined
  /** Upwards; what the viewer does not see ends it. */
  readonly above: readonly { readonly uri: string; readonly post: PostRow | undefined }[]
  /** Level by level, and oldest first among those that answer the same post. */
  readonly below: readonly { readonly parent: string; readonly post: PostRow }[]
}

/** @throws XrpcError 503 IndexStale */
export async function threadRows(reads: IndexReads, query: ThreadQuery): Promise<ThreadRows> {
  const rows = await reads.rows<ThreadRow>(threadText, threadArgs(query), query.viewer.did)
  checkFresh(rows)
  const found = rows.filter((row) => row.part !== null)
  const anchor = found.find((row) => row.part === 'anchor')
  return {
    anchor: anchor === undefined || anchor.record === null ? undefined : anchor,
    above: aboveOf(found.filter(({ part }) => part === 'above')),
    below: found
      .filter(({ part }) => part === 'below')
      .flatMap((row) =>
        row.record === null || row.parent === null ? [] : [{ parent: row.parent, post: row }],
      ),
  }
}

/** Of the parameters of `threadText`. */
function threadArgs({ viewer, uri, depth, parentHeight }: ThreadQuery): IndexArgument[] {
  const limits = [parentHeight, depth, repliesMax, postsBelowMax, contentBytesMax]
  return [...viewerArgs(viewer), uri, ...limits]
}

function aboveOf(rows: readonly FoundRow[]): ThreadRows['above'] {
  const all = rows.map((row) => ({ uri: row.uri, post: row.record === null ? undefined : row }))
  // Where there was no room the answer ends, since nothing is said of a post that is there; and where
  // a post names as the one above it what can be none: that may be any text, of any length.
  const end = rows.findIndex(({ uri, record, visible }) =>
    visible ? record === null : recordPlace(uri) === undefined,
  )
  return end < 0 ? all : all.slice(0, end)
}

/** Of one post; those that came first. */
const repliesMax = 100
/** Of all levels together. */
const postsBelowMax = 1_000

type ThreadRow = { readonly stale: boolean } & ({ readonly part: null } | FoundRow)

type FoundRow =
  | (PostRow & Place)
  /** The viewer does not see it, or there was no room for it. */
  | (Place & { readonly record: null })

interface Place {
  readonly part: 'above' | 'anchor' | 'below'
  readonly uri: string
  readonly visible: boolean
  /** The post that it answers. */
  readonly parent: string | null
}

/**
 * A post, those above it and those below it, of one service: a reply is of the service of what it
 * answers. Two services may have a post of one URI; the newer one counts. Below what the viewer does
 * not see nothing is looked for, and that something is there is not told. Above, the post that was
 * found has named it.
 *
 * The places are few, whatever the server expects: it is held to look each of them up.
 *
 * Parameters: those of `viewerTables`, URI, posts above, levels below, replies of one post, posts
 * below, bytes.
 */
const threadText = `with recursive ${viewerTables},
  anchor as materialized (
    select p.service, p.uri, p."replyParent" from stratos_post p
    where p.uri = $3 and not (select stale from viewer)
      and p.service in (select e.service from stratos_enrollment e where e.did = $1)
      and ${isVisible('p')}
    order by p."sortAt" desc, p.service limit 1
  ),
  above (step, service, uri) as (
    select 1, service, "replyParent" from anchor
    where "replyParent" is not null and $4::integer > 0
    union all
    select above.step + 1, p.service, p."replyParent"
    from above join stratos_post p on p.service = above.service and p.uri = above.uri
    where above.step < $4::integer and p."replyParent" is not null and ${isVisible('p')}
  ),
  below (step, service, uri) as (
    select 1, r.service, r.uri from anchor cross join lateral (${replies('anchor')}) r
    where $5::integer > 0
    union all
    select below.step + 1, r.service, r.uri
    from below cross join lateral (${replies('below')}) r
    where below.step < $5::integer
  ),
  place as (
    select 'anchor' as part, 0 as step, service, uri, true as visible from anchor
    union all
    select 'above', a.step, a.service, a.uri, exists (select from stratos_post p
      where p.service = a.service and p.uri = a.uri and ${isVisible('p')})
    from above a
    union all
    select 'below', step, service, uri, true
    from (select step, service, uri from below limit $7::integer) b
  ),
  sized as (
    select place.part, place.step, place.uri, place.visible, p."replyParent" as parent, p."sortAt",
      p.cid, p.creator, p."indexedAt", p.record, a."serviceUrl",
      place.part = 'anchor' or coalesce(sum(${contentBytes('p')}) over (
        order by array_position(array['anchor', 'above', 'below'], place.part), place.step,
          p."sortAt", place.uri
      ), 0) <= $8::integer as fits
    from place left join lateral (
      select * from stratos_post p
      where place.visible and p.service = place.service and p.uri = place.uri offset 0
    ) p on true
    left join stratos_enrollment a on a.service = p.service and a.did = p.creator
  )
  select v.stale, s.part, s.uri, s.visible, s.parent, s.cid, s.creator, s."indexedAt", s."serviceUrl",
    case when s.fits then s.record end as record
  from viewer v left join sized s on true
  order by s.part, s.step, s."sortAt", s.uri`

function replies(parent: string): string {
  return `
    select p.service, p.uri from stratos_post p
    where p.service = ${parent}.service and p."replyParent" = ${parent}.uri and ${isVisible('p')}
    order by p."sortAt", p.uri limit $6::integer`
}
