-- What the records here answer and quote.
create table stratos_backlink (
  uri text not null,
  -- Where in the record: reply.root, reply.parent or embed.
  path text not null,
  "linkTo" text not null,
  primary key (uri, path)
) strict, without rowid;

create index stratos_backlink_target on stratos_backlink ("linkTo", path);

-- Work that a migration cannot do by itself, to be done when the database is opened.
create table stratos_due (
  name text primary key
) strict, without rowid;

insert into stratos_due (name) select 'backlinks' where exists (select 1 from stratos_record);
