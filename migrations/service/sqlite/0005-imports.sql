-- When somebody last filled their repo from a file: once a day at most.
create table import (
  did text primary key,
  "importedAtMs" integer not null
) strict, without rowid;
