-- Keys of apps that act for a person, by the SHA-256 thumbprint of the public key.
create table bound_key (
  did text not null,
  jkt text not null,
  "boundAtMs" integer not null,
  "expiresAtMs" integer not null,
  primary key (did, jkt)
) strict, without rowid;

create index bound_key_expiry on bound_key ("expiresAtMs");
