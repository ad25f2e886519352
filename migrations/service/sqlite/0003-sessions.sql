-- Secrets that session tokens are signed with: one in use, and former ones for as long as what they
-- signed counts.
create table session_secret (
  kid text primary key,
  secret blob not null,
  "createdAtMs" integer not null,
  -- Since when it signs nothing any more; null for the one in use.
  "retiredAtMs" integer
) strict, without rowid;

create unique index session_secret_used on session_secret ((1)) where "retiredAtMs" is null;

-- Sessions that count, by the hash of an id that stands in their token alone.
create table session (
  -- In the order in which they began: many begin, and expire, in one second.
  id integer primary key,
  digest text not null unique,
  did text not null,
  "expiresAtMs" integer not null
) strict;

create index session_did on session (did);

create index session_expiry on session ("expiresAtMs");
