import type { Did } from '../atproto/syntax.ts'
import type { IndexArgument, IndexReads } from './index-reads.ts'
import { checkFresh, type PostRow } from './post.ts'
import {
  contentBytes,
  contentBytesMax,
  isUp,
  type Viewer,
  viewerArgs,
  viewerTables,
} from './visible.ts'

export interface FeedQuery {
  readonly viewer: Viewer
  /** Of whom; undefined for everybody. */
  readonly author?: Did | undefined
  /** The one boundary of which posts are wanted; undefined for all that the viewer is in. */
  readonly boundary?: string | undefined
  readonly limit: number
  /** The last post of the page before. */
  readonly after?: FeedPlace | undefined
}

/** Where a post stands in every feed. */
export interface FeedPlace {
  /** Its time as PostgreSQL writes it: to the microsecond, which `Date` is not. */
  readonly at: string
  readonly uri: string
}

export interface FeedPage {
  readonly posts: readonly PostRow[]
  /** Undefined where no more posts are there. */
  readonly next: FeedPlace | undefined
}

/**
 * One page, newest first. It is full whenever enough posts are visible and their content is small.
 * @throws XrpcError 503 IndexStale
 */
export async function feedPage(reads: IndexReads, query: FeedQuery): Promise<FeedPage> {
  const rows = await reads.rows<FeedRow>(feedText(query), feedArgs(query), query.viewer.did)
  checkFresh(rows)
  const found = rows.filter((row) => row.uri !== null)
  const posts = found.slice(0, query.limit).filter((row) => row.record !== null)
  const last = posts.at(-1)
  const isLast = last === undefined || posts.length === found.length
  return { posts, next: isLast ? undefined : { at: last.at, uri: last.uri } }
}

function feedText({ author }: FeedQuery): string {
  return author === undefined ? timelineText : authorFeedText
}

/** Of the parameters of `feedText`. */
function feedArgs(query: FeedQuery): IndexArgument[] {
  const { viewer, author, boundary = null, limit, after = newest } = query
  // Text of PostgreSQL holds no NUL character, so that such a name is nobody's, as the empty one.
  const wanted = boundary?.includes('\0') === true ? '' : boundary
  // One more than wanted tells whether there is more.
  const page = [wanted, after.at, after.uri, limit + 1, contentBytesMax]
  return [...viewerArgs(viewer), ...page, ...(author === undefined ? [] : [author])]
}

type FeedRow = { readonly stale: boolean } & (
  | { readonly uri: null }
  | (PostRow & { readonly at: string })
  /** There was no room for it. */
  | (Omit<PostRow, 'record'> & { readonly at: string; readonly record: null })
)

const newest: FeedPlace = { at: 'infinity', uri: '' }

const timelineText = textOf('')
const authorFeedText = textOf('and m.creator = $8')

/**
 * Every boundary is read from its newest visible post on, and what was read is merged. To read a
 * whole page of each would cost the most for those who are in many. So a few of each are read first:
 * where these alone make a page, none that is older than the last of them can be on it, and it is
 * down to that time that the boundaries are read then.
 *
 * That is the `floor`, and only needed at times: to see whether a post is visible costs ten times as
 * much as to read its place, and most are. So the time is guessed by places alone, for a page and a
 * quarter of it. Where a page of visible posts is found down to that time, no other can be on it.
 *
 * For example, with a page of 4 and the boundaries a and b: 3 of each are read first. Those of a are
 * of 9, 8 and 7 o'clock, those of b of 5, 4 and 3. The fourth is of 5 o'clock, so a is read down to
 * 5 o'clock, which finds one of 6, and b is, too: the page is 9, 8, 7, 6.
 *
 * Parameters: those of `viewerTables`, boundary or null, time and URI of the last post before, rows,
 * bytes, author.
 */
function textOf(ofAuthor: string): string {
  const visible = (limit: string, floor: string) => `
    select m.service, m."sortAt", m.uri from stratos_post_boundary m
    where m.boundary = wanted.name and m.service = wanted.service ${ofAuthor} ${floor}
      and (m."sortAt", m.uri) < ($4::text::timestamptz, $5) and ${isUp('m')}
    order by m."sortAt" desc, m.uri desc limit ${limit}`
  return `with ${viewerTables},
  wanted as materialized (
    select service, name from boundary where not (select stale from viewer) and name = coalesce($3, name)
  ),
  few as materialized (
    select least($6::integer, ceil(2.0 * $6::integer / greatest(count(*), 1)) + 1)::integer as each
    from wanted
  ),
  guess as materialized (
    select coalesce((
      select "sortAt" from (
        select distinct m."sortAt", m.uri from wanted cross join few cross join lateral (
          select m."sortAt", m.uri from stratos_post_boundary m
          where m.boundary = wanted.name ${ofAuthor}
            and (m."sortAt", m.uri) < ($4::text::timestamptz, $5)
          order by m."sortAt" desc, m.uri desc
          limit least(4 * few.each, $6::integer * 5 / 4 + 1)
        ) m
      ) first
      order by "sortAt" desc offset $6::integer * 5 / 4 limit 1
    ), '-infinity') as "sortAt"
  ),
  quick as materialized (
    select m.* from wanted cross join guess
      cross join lateral (${visible('$6::integer', 'and m."sortAt" >= guess."sortAt"')}) m
  ),
  enough as materialized (
    select guess."sortAt" = '-infinity' or (
      select count(*) >= $6::integer from (select distinct "sortAt", uri from quick) visible
    ) as holds from guess
  ),
  floor as materialized (
    select coalesce((
      select "sortAt" from (
        select distinct m."sortAt", m.uri
        from wanted cross join few cross join lateral (${visible('few.each', '')}) m
      ) first
      order by "sortAt" desc offset $6::integer - 1 limit 1
    ), '-infinity') as "sortAt"
  ),
  page as materialized (
    select distinct on ("sortAt", uri) service, "sortAt", uri from (
      select quick.* from quick where (select holds from enough)
      union all
      select m.* from wanted cross join floor
        cross join lateral (${visible('$6::integer', 'and m."sortAt" >= floor."sortAt"')}) m
      where not (select holds from enough)
    ) found
    order by "sortAt" desc, uri desc, service limit $6::integer
  ),
  sized as (
    select p."sortAt", p.uri, q.cid, q.creator, q.record, q."indexedAt", a."serviceUrl",
      row_number() over newest_first = 1
        or sum(${contentBytes('q')}) over newest_first <= $7::integer as fits
    from page p join stratos_post q on q.service = p.service and q.uri = p.uri
      join stratos_enrollment a on a.service = q.service and a.did = q.creator
    window newest_first as (order by p."sortAt" desc, p.uri desc)
  )
  select v.stale, s."sortAt"::text as at, s.uri, s.cid, s.creator, s."indexedAt", s."serviceUrl",
    case when s.fits then s.record end as record
  from viewer v left join sized s on true
  order by s."sortAt" desc, s.uri desc`
}
