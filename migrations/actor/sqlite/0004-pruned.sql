-- Up to where events are no longer kept: one row, or none while all are.
create table stratos_pruned (
  id integer primary key check (id = 1),
  seq integer not null
) strict;
