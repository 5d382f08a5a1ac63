-- The index: everything the registry knows but the bytes. Times come from the database's clock.

create table repository (
  id bigint generated always as identity primary key,
  name text collate "C" not null,
  created_at timestamptz not null default now(),
  deleted_at timestamptz,
  uses_sha512 boolean not null default false
);
-- A deleted repository frees its name at once; the collector drains the old row later.
create unique index repository_name on repository (name) where deleted_at is null;

-- Stored bytes, one row per digest string: two algorithms over one content are two rows and two keys.
create table blob (
  id bigint generated always as identity primary key,
  digest text collate "C" not null unique,
  size bigint not null check (size >= 0),
  store text not null,
  storage_key text collate "C" not null unique,
  created_at timestamptz not null default now(),
  damaged_at timestamptz
);

-- What makes a blob visible in a repository. A finite lease is what the sweep looks at; infinity means found in use.
create table repository_blob (
  repository_id bigint not null references repository (id),
  blob_id bigint not null references blob (id),
  digest text collate "C" not null,
  lease_until timestamptz not null,
  primary key (repository_id, blob_id)
);
create unique index repository_blob_digest on repository_blob (repository_id, digest);
create index repository_blob_blob on repository_blob (blob_id);
create index repository_blob_lease on repository_blob (lease_until) where lease_until < 'infinity';

create table manifest (
  id bigint generated always as identity primary key,
  repository_id bigint not null references repository (id),
  digest text collate "C" not null,
  media_type text not null,
  artifact_type text,
  subject_digest text collate "C",
  size bigint not null,
  payload bytea not null,
  annotations jsonb,
  lease_until timestamptz not null,
  deleted_at timestamptz,
  pushed_at timestamptz not null default now(),
  pushed_by text,
  unique (repository_id, digest),
  unique (repository_id, id)
);
create index manifest_subject on manifest (repository_id, subject_digest, digest) where subject_digest is not null;
create index manifest_lease on manifest (lease_until) where lease_until < 'infinity';

-- Edges hold the digest, because content may come after what names it; the id is bound where the target exists.
create table manifest_blob (
  manifest_id bigint not null,
  repository_id bigint not null,
  digest text collate "C" not null,
  blob_id bigint,
  primary key (manifest_id, digest),
  foreign key (repository_id, manifest_id) references manifest (repository_id, id) on delete cascade,
  foreign key (repository_id, blob_id) references repository_blob (repository_id, blob_id)
);
create index manifest_blob_target on manifest_blob (repository_id, digest);
create index manifest_blob_bound on manifest_blob (repository_id, blob_id) where blob_id is not null;

create table manifest_child (
  parent_id bigint not null,
  repository_id bigint not null,
  child_digest text collate "C" not null,
  child_id bigint,
  primary key (parent_id, child_digest),
  foreign key (repository_id, parent_id) references manifest (repository_id, id) on delete cascade,
  foreign key (repository_id, child_id) references manifest (repository_id, id)
);
create index manifest_child_target on manifest_child (repository_id, child_digest);
create index manifest_child_bound on manifest_child (repository_id, child_id) where child_id is not null;

create table tag (
  repository_id bigint not null references repository (id),
  name text collate "C" not null,
  manifest_id bigint not null,
  updated_at timestamptz not null default now(),
  primary key (repository_id, name),
  foreign key (repository_id, manifest_id) references manifest (repository_id, id)
);
create index tag_manifest on tag (repository_id, manifest_id);

create table tag_history (
  id bigint generated always as identity primary key,
  repository_id bigint not null references repository (id),
  name text collate "C" not null,
  old_digest text collate "C",
  new_digest text collate "C",
  changed_at timestamptz not null default now(),
  changed_by text
);
create index tag_history_tag on tag_history (repository_id, name, id);

create table upload (
  id uuid primary key,
  repository_id bigint not null references repository (id),
  "offset" bigint not null default 0,
  -- Raised by whoever takes the upload's lease; persisting and finishing demand it, so a stale writer changes nothing.
  epoch bigint not null default 0,
  lease_until timestamptz,
  expires_at timestamptz not null,
  store text not null,
  store_state jsonb not null,
  -- Digests of the bytes before offset, by algorithm, so that a close compares and does not read.
  prefix_digest jsonb not null,
  principal text,
  created_at timestamptz not null default now()
);
create index upload_expiry on upload (expires_at);
create index upload_repository on upload (repository_id);

-- Bytes no row names any more. `state` is set for unfinished content. Purging commits purging_at before it deletes.
create table trash (
  store text not null,
  storage_key text collate "C" not null,
  state jsonb,
  digest text collate "C",
  size bigint,
  purge_after timestamptz not null,
  purging_at timestamptz,
  primary key (store, storage_key)
);
create index trash_due on trash (purge_after);

-- Every visible change, written in the change's own transaction.
create table event (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default now(),
  kind text not null,
  repository text collate "C" not null,
  detail jsonb not null
);
create index event_order on event (xid, seq);
create index event_at on event (at);
