-- What is left of the budget of writes to the PDS, and when that was so.
create table stratos_outbox_budget (
  id integer primary key check (id = 1),
  points real not null,
  "pointsAtMs" integer not null
) strict;

create index stratos_outbox_parked on stratos_outbox (collection, rkey) where parked is not null;
