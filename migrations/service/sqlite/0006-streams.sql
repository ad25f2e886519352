-- Subjects of whose takedown, or its lifting, those who follow the repo are still to be told.
create table takedown_news (
  subject text primary key,
  did text not null
) strict, without rowid;

-- Those who left, in the order in which streams tell of it.
create index departed_event on departed ("eventSeq");
