import type { Did } from '../atproto/syntax.ts'

/** Of the enrollment stream of a service, which says something every two seconds. */
const silenceMsMax = 5_000
/** Of the clock of the index before that of its AppView. */
const aheadMsMax = 1_000

/**
 * What every query of a viewer begins with, `$1` being the viewer's DID and `$2` the time since
 * which services must have been heard: `viewer`, one row that says whether the index is stale,
 * `boundary`, the names of the viewer's boundaries at present, with their services, and `boundaries`,
 * the same with a row for each service. They are of one snapshot with the rows that are read, so that
 * an answer is never of before a change while its check is of after it. A service that was heard in
 * the future is one of which silence would not be noticed.
 */
export const viewerTables = `
  viewer as materialized (
    select coalesce(bool_or(s."heardAt" is null or s."heardAt" not between $2::text::timestamptz
      and $2::text::timestamptz + interval '${silenceMsMax + aheadMsMax} milliseconds'), false) as stale
    from stratos_enrollment e left join stratos_service_state s on s.service = e.service
    where e.did = $1
  ),
  boundary as materialized (
    select distinct e.service, b.name
    from stratos_enrollment e cross join unnest(e.boundaries) as b (name)
    where e.did = $1 and starts_with(b.name, e.service || '/')
  ),
  boundaries as (select service, array_agg(name) as names from boundary group by service)`

/**
 * Whether the author of a row with `service`, `uri` and `creator` is there, and it is neither taken
 * down nor one of many that are on their way out, which the path `*` says.
 */
export function isUp(row: string): string {
  return `exists (select from stratos_enrollment a
      where a.service = ${row}.service and a.did = ${row}.creator)
    and not exists (select from stratos_takedown t
      where t.service = ${row}.service and t.did = ${row}.creator
        and t.path in ('', '*', substr(${row}.uri, length('at://' || ${row}.creator || '/') + 1)))`
}

/**
 * Whether the viewer may see a row of `stratos_post`. Asked of each row as it is read: were these
 * joins, as the server makes them of what is not held together by `is true`, all answers to a post
 * would be read before the first of them is looked at.
 */
export function isVisible(post: string): string {
  return `(exists (select from boundaries o
      where o.service = ${post}.service and o.names && ${post}.boundaries)
    and ${isUp(post)}) is true`
}

export interface Viewer {
  readonly did: Did
  readonly now: number
}

export function viewerArgs({ did, now }: Viewer): [string, string] {
  return [did, new Date(now - silenceMsMax).toISOString()]
}

/**
 * How much larger a post may be in an answer than its record and URI are in the index. Bytes of which
 * there are none take the most: 1 byte of DAG-CBOR is 14 with a comma in JSON. A control character is
 * 6 for 1, 12 where a blob or a post that is not found is named by it once more. What is said beside
 * the record, and of its blobs, is less than records and blobs are below their fourteenfold.
 */
export const growthMax = 14

/** That a PDS passes on. */
const answerBytesMax = 10 * 1024 * 1024
/** Brackets and cursor. */
const aroundBytesMax = 16 * 1024

/**
 * Records and URIs of the posts of one answer, a hundred times what a page usually has. One post is
 * always answered: it has a MiB at most, of which 20,000 values grow fourteenfold, and the rest sixfold.
 */
export const contentBytesMax = Math.floor((answerBytesMax - aroundBytesMax) / growthMax)

/** What a row with `record` and `uri` counts against `contentBytesMax`. */
export function contentBytes(post: string): string {
  return `octet_length(${post}.record) + octet_length(${post}.uri)`
}
