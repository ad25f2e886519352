-- PDS at which the person signed in last: what a DID document names is a claim until then.
alter table enrollment add column "signInPds" text not null default '';

update enrollment set "signInPds" = "pdsEndpoint";

-- Who left: the numbers that a return continues. Kept for ever.
create table departed (
  did text primary key,
  seq integer not null,
  rev text not null,
  "departedAt" text not null,
  -- The last event of the membership, which itself is forgotten with the person.
  "eventSeq" integer not null,
  -- Keys on the PDS that could not be deleted in time, as a JSON array; null when there are none.
  "leftBehind" text
) strict, without rowid;

-- One job for each who left, until nothing of theirs is left.
create table departure (
  did text primary key,
  "sinceMs" integer not null,
  -- 1 once data and key are gone.
  erased integer not null,
  -- What is left of the budget of writes to the PDS, and when that was so; null when untouched.
  points real,
  "pointsAtMs" integer
) strict, without rowid;

-- What a departure still has to delete on the PDS.
create table departure_key (
  did text not null,
  collection text not null,
  rkey text not null,
  position integer not null,
  -- CID of what we last put there; null when it is not known whether anything of ours is there.
  "pdsCid" text,
  attempts integer not null,
  "nextAttemptAtMs" integer not null,
  parked text,
  primary key (did, collection, rkey)
) strict, without rowid;

create index departure_key_pending on departure_key (did, position) where parked is null;

-- Changes of membership, for whoever follows them.
create table service_event (
  seq integer primary key autoincrement,
  did text not null,
  action text not null,
  time text not null
) strict;

-- What the last good copy of the external list of who may enroll is a copy of: one row, or none.
create table allow_list_copy (
  -- SHA-256 of the list's URI, which may hold a secret.
  list text primary key,
  -- SHA-256 of its text.
  digest text not null,
  etag text,
  "fetchedAtMs" integer not null,
  edition integer not null
) strict, without rowid;

-- Who is on it. A row counts from the edition `since` on, and before the edition `until`.
create table allow_list (
  did text primary key,
  since integer not null,
  until integer
) strict, without rowid;

-- Actors whose outbox may hold rows that were given up.
create table outbox_parked (
  did text primary key
) strict, without rowid;

create index enrollment_boundary_name on enrollment_boundary (boundary);

create table takedown (
  -- A DID, or the URI of a record.
  subject text primary key,
  did text not null,
  -- Of a record, as the takedown named it; null for a repo.
  cid text,
  -- What whoever applied it calls it.
  ref text,
  "appliedAt" text not null
) strict, without rowid;

create index takedown_did on takedown (did);

-- People who signed in on our own page, by the hash of what their browser's cookie holds.
create table browser_session (
  digest text primary key,
  did text not null,
  "expiresAtMs" integer not null
) strict, without rowid;

create index browser_session_did on browser_session (did);

create index browser_session_expiry on browser_session ("expiresAtMs");

-- Keys of the confidential OAuth client, as private JWKs: one that new sign-ins use, one that is
-- published and used next, and former ones that sessions still need.
create table oauth_key (
  kid text primary key,
  jwk text not null,
  "createdAtMs" integer not null,
  -- Since when sign-ins use it; null for the next one.
  "usedFromMs" integer,
  -- Until when they did; null for the one in use.
  "usedUntilMs" integer
) strict, without rowid;

-- Sessions that were not refreshed for long.
create index oauth_session_age on oauth_session ("updatedAt");

-- Tokens of methods that take each token once.
create table used_token (
  digest text primary key,
  "expiresAtMs" integer not null
) strict, without rowid;

create index used_token_expiry on used_token ("expiresAtMs");
