-- Syncs with other registries: when those of the settings run next, and what their runs did.

-- By the name of the sync. Kept beside the settings so that one process asks for a run, however many look.
create table sync_schedule (
  name text collate "C" primary key,
  schedule text not null,
  time_zone text not null,
  next_run_at timestamptz
);

-- It is worked off by whichever process holds its lease, and goes on after one that died.
create table sync_run (
  id bigint generated always as identity primary key,
  name text collate "C" not null,
  -- Looks only.
  is_dry boolean not null,
  state text not null check (state in ('waiting', 'done', 'failed', 'stopped')),
  asked_by text not null,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  -- The repository whose tags were listed last, and whether all were.
  cursor text collate "C" not null default '',
  is_listed boolean not null default false,
  lease_until timestamptz not null default '-infinity',
  epoch bigint not null default 0,
  error text
);
-- One at a time of each sync.
create unique index sync_run_waiting on sync_run (name) where state = 'waiting';
create index sync_run_name on sync_run (name, id);
create index sync_run_created on sync_run (created_at);

-- Each image of a run, by its name at the source, and what came of it.
create table sync_item (
  run_id bigint not null references sync_run (id) on delete cascade,
  repository text collate "C" not null,
  -- Empty where the repository as a whole could not be listed.
  tag text collate "C" not null,
  target text collate "C" not null,
  digest text collate "C",
  outcome text check (outcome in ('copied', 'up-to-date', 'to-copy', 'skipped', 'failed')),
  reason text,
  -- What was moved for it.
  manifests bigint not null default 0,
  blobs bigint not null default 0,
  bytes bigint not null default 0,
  primary key (run_id, repository, tag)
);
create index sync_item_open on sync_item (run_id, repository, tag) where outcome is null;

-- Blobs on their way: the session in which the next process goes on. It goes with the session, whatever ends that.
create table sync_upload (
  repository text collate "C" not null,
  digest text collate "C" not null,
  upload_id uuid not null unique references upload (id) on delete cascade,
  primary key (repository, digest)
);
