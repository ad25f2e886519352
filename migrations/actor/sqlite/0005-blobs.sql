-- Blobs whose bytes are here. One that no record names and that has left its temporary place is on
-- its way out: it counts as gone.
create table stratos_blob (
  cid text primary key,
  "mimeType" text not null,
  size integer not null,
  -- Where its bytes stand until they are at their permanent place.
  "tempKey" text,
  "uploadedAtMs" integer not null
) strict, without rowid;

-- Which record names which blob, be that one here or missing.
create table stratos_record_blob (
  "recordUri" text not null,
  "blobCid" text not null,
  primary key ("recordUri", "blobCid")
) strict, without rowid;

create index stratos_record_blob_cid on stratos_record_blob ("blobCid");

insert into stratos_due (name) select 'record-blobs' where exists (select 1 from stratos_record);
