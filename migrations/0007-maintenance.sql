-- What stores hold, counted here because no row is locked for it.
insert into store_usage (store, blobs, bytes) select store, count(*), sum(size) from blob group by store;

-- Work that walks the whole registry, a row each: which run it is, how far it is, and which process has it. A process
-- that dies leaves a lease that ends, and the next one goes on from the cursor. A run is under way from started_at until
-- finished_at is set.
create table maintenance (
  name text primary key,
  run bigint not null default 0,
  requested boolean not null default false,
  started_at timestamptz,
  finished_at timestamptz default now(),
  holder uuid,
  lease_until timestamptz,
  cursor jsonb,
  progress jsonb,
  failure text
);

-- What a verification found wrong: few rows, looked for by people.
create index blob_damaged on blob (id) where damaged_at is not null;

-- Deleting a manifest writes a row of history for each of its tags, and checking this key for each of them took longer
-- than everything else. The row is written by who holds a manifest of the repository, so the repository is there.
lock table repository, tag_history in access exclusive mode;
alter table tag_history drop constraint tag_history_repository_id_fkey;
