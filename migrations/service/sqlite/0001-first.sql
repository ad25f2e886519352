create table enrollment (
  did text primary key,
  "pdsEndpoint" text not null,
  "signingKey" text not null,
  rkey text not null,
  "enrolledAt" text not null,
  active integer not null,
  -- The OAuth scope that the person granted, as the PDS wrote it.
  scope text not null,
  -- 1 while a changed PDS record still has to be queued in the actor's outbox.
  "recordDue" integer not null
) strict, without rowid;

create index enrollment_record_due on enrollment (did) where "recordDue" = 1;

create table enrollment_boundary (
  did text not null,
  boundary text not null,
  primary key (did, boundary)
) strict, without rowid;

create table oauth_state (
  key text primary key,
  value text not null,
  -- Of whoever began, for limits.
  address text not null,
  "createdAtMs" integer not null
) strict, without rowid;

create index oauth_state_address on oauth_state (address);

create index oauth_state_age on oauth_state ("createdAtMs");

create table oauth_session (
  did text primary key,
  value text not null,
  "updatedAt" text not null
) strict, without rowid;

-- Actors whose outbox may hold undelivered rows.
create table outbox_dirty (
  did text primary key
) strict, without rowid;

create table meta (
  name text primary key,
  value text not null
) strict, without rowid;
