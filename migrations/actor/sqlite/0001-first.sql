-- The head: the newest signed commit, and the numbers that the next Change continues.
create table stratos_repo_root (
  did text primary key,
  cid text not null,
  rev text not null,
  seq integer not null,
  "lastBlock" integer not null,
  content blob not null,
  "indexedAt" text not null
) strict, without rowid;

create table stratos_record (
  uri text primary key,
  cid text not null,
  collection text not null,
  rkey text not null,
  "repoRev" text not null,
  "indexedAt" text not null,
  "takedownRef" text,
  "blockId" integer not null
) strict, without rowid;

create table stratos_record_boundary (
  boundary text not null,
  collection text not null,
  rkey text not null,
  primary key (boundary, collection, rkey)
) strict, without rowid;

-- Record blocks, each owned by one record row. Tree nodes are derived from the record rows.
create table stratos_repo_block (
  id integer primary key,
  content blob not null
) strict;

-- One row a commit; the event holds facts, never record bytes.
create table stratos_seq (
  seq integer primary key autoincrement,
  did text not null,
  time text not null,
  rev text not null,
  event text not null
) strict;

-- The wanted state of each key on the PDS; a row stays after delivery to remember what we put.
create table stratos_outbox (
  collection text not null,
  rkey text not null,
  -- Order of queuing, and the version that a report of delivery must name.
  position integer not null,
  -- The record to put, or null to delete.
  record text,
  -- CID of what we last put there, null when nothing of ours is there.
  "pdsCid" text,
  pending integer not null,
  attempts integer not null,
  "nextAttemptAtMs" integer not null,
  -- Why delivery was given up.
  parked text,
  primary key (collection, rkey)
) strict, without rowid;

create index stratos_outbox_pending on stratos_outbox (position) where pending = 1;
