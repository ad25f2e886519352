-- Keys compare by their bytes, whatever the locale of the database: the order of pages is the same
-- everywhere, and comparing costs least.
create table stratos_post (
  service text collate "C" not null,
  uri text collate "C" not null,
  cid text not null,
  rkey text not null,
  creator text collate "C" not null,
  text text not null,
  "replyRoot" text collate "C",
  "replyRootCid" text,
  "replyParent" text collate "C",
  "replyParentCid" text,
  embed jsonb,
  facets jsonb,
  langs text[],
  labels jsonb,
  tags text[],
  -- Who may see it: for each one a row of stratos_post_boundary.
  boundaries text[] collate "C" not null,
  -- As stored, DAG-CBOR: what answers show. The columns are for queries, and lack the NUL
  -- characters that PostgreSQL has no room for.
  record bytea not null,
  "createdAt" timestamptz not null,
  "indexedAt" timestamptz not null,
  "sortAt" timestamptz not null generated always as (least("createdAt", "indexedAt")) stored,
  primary key (service, uri)
);

-- For threads downwards, in the order in which answers are shown; only answers are in it.
create index stratos_post_parent on stratos_post (service, "replyParent", "sortAt", uri)
  where "replyParent" is not null;

-- A boundary begins with its service's DID. This key is the timeline of one boundary.
create table stratos_post_boundary (
  service text collate "C" not null,
  boundary text collate "C" not null,
  "sortAt" timestamptz not null,
  uri text collate "C" not null,
  creator text collate "C" not null,
  primary key (boundary, "sortAt", uri)
);

-- What somebody wrote in one boundary, newest first.
create index stratos_post_boundary_creator
  on stratos_post_boundary (creator, boundary, "sortAt", uri);

-- Who is enrolled. Its row is what changes of an actor lock.
create table stratos_enrollment (
  service text collate "C" not null,
  did text collate "C" not null,
  "serviceUrl" text not null,
  "enrolledAt" timestamptz not null,
  "lastChecked" timestamptz not null,
  boundaries text[] not null,
  primary key (service, did)
);

-- Which services somebody is enrolled with: the first question of every answer.
create index stratos_enrollment_did on stratos_enrollment (did);

create table stratos_sync_cursor (
  service text collate "C" not null,
  did text collate "C" not null,
  seq bigint not null,
  -- Rows of the actor are missing: they are to be replaced by a backfill.
  "backfillDue" boolean not null default false,
  "updatedAt" timestamptz not null,
  primary key (service, did)
);

-- The path is empty for the whole repo, else collection/rkey, or * of an account whose rows are too
-- many to go in one transaction: until the last one is gone none of them is seen, and none is added.
create table stratos_takedown (
  service text collate "C" not null,
  did text collate "C" not null,
  path text collate "C" not null,
  primary key (service, did, path)
);

-- For whoever goes on with them.
create index stratos_takedown_leaving on stratos_takedown (service, did) where path = '*';

-- Events whose rows were refused, whole or in part, with why. The frame is null where it is unknown.
create table stratos_parked_event (
  service text collate "C" not null,
  did text collate "C" not null,
  seq bigint not null,
  error text not null,
  frame bytea,
  "parkedAt" timestamptz not null,
  primary key (service, did, seq)
);

-- When the enrollment stream of a service was last heard: silence over 5 s is IndexStale.
create table stratos_service_state (
  service text collate "C" primary key,
  "serviceUrl" text not null,
  "heardAt" timestamptz not null
);

-- Rows of an actor who is read anew, until they take the place of the old ones in one transaction.
-- What is left of a run that was cut off goes with the next one.
create unlogged table stratos_backfill_page (
  service text collate "C" not null,
  did text collate "C" not null,
  run uuid not null,
  page integer not null,
  -- As JSON, and the URIs that are in it.
  rows text not null,
  uris text[] not null,
  primary key (service, did, run, page)
);
-- It is read back once: compressing it would cost more than it saves.
alter table stratos_backfill_page alter column rows set storage external;

-- How far the event stream of a PDS or relay was read, by its URL without credentials: all hints up
-- to there were handed over.
create table stratos_firehose_cursor (
  url text collate "C" primary key,
  seq bigint not null,
  "updatedAt" timestamptz not null
);
