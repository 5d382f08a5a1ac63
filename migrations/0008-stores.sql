-- Which stores hold what, which database owns them, and the moving of content from one to another.

-- The names in use, and what is left to move, are found without visiting the other blobs.
create index blob_store on blob (store, id);

-- Made once. The marker in a store names the database that may delete there.
create table database_identity (
  only_row boolean primary key default true check (only_row),
  id uuid not null default gen_random_uuid()
);
insert into database_identity default values;

-- What this database knows of the marker in a store. Every start of a process gives it another stamp, so that a copy of
-- this database, which has the same identity, is noticed by the stamp that it does not know.
create table store_claim (
  store text primary key,
  stamp uuid,
  -- The stamp that is being written; the marker may have either.
  next_stamp uuid,
  stamping_until timestamptz,
  -- From when on bytes may be deleted: until then another copy would have objected.
  settled_at timestamptz not null default 'infinity'
);

-- The move that was asked for last. Whoever holds its lease works on it.
create table storage_copy (
  only_row boolean primary key default true check (only_row),
  target text not null,
  at_once integer not null check (at_once > 0),
  bytes_per_second bigint check (bytes_per_second > 0),
  requested_at timestamptz not null default now(),
  requested_by text not null,
  found_blobs bigint not null default 0,
  found_bytes bigint not null default 0,
  copied_blobs bigint not null default 0,
  copied_bytes bigint not null default 0,
  failed_blobs bigint not null default 0,
  last_failure text,
  epoch bigint not null default 0,
  lease_until timestamptz,
  ended_at timestamptz,
  outcome text check (outcome in ('done', 'incomplete', 'stopped')),
  check ((ended_at is null) = (outcome is null))
);
