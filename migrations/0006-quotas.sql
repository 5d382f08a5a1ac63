-- What repositories use, counted in the transactions that change it, and limits on it.

-- In the order of pushes: one that holds the first would wait for the last, and this for the first.
lock table repository, upload, repository_blob in access exclusive mode;

-- A link counts while a visible manifest names it, and from its making on; not once the last such manifest was deleted.
alter table repository_blob add column counted boolean not null default true;

-- The quotas that a repository counts in, ascending: one row to read, and to lock, for whoever changes what it uses.
alter table repository add column quotas bigint[] not null default '{}';

-- Bytes that the request writing to a session now announced or sent, where a quota wants to know; 0 between requests.
alter table upload add column reserved bigint not null default 0;
create index upload_reserved on upload (repository_id) where reserved > 0;

create table repository_usage (
  repository_id bigint primary key references repository (id) on delete cascade,
  blobs bigint not null default 0,
  blob_bytes bigint not null default 0,
  manifests bigint not null default 0,
  manifest_bytes bigint not null default 0,
  tags bigint not null default 0,
  bytes bigint not null generated always as (blob_bytes + manifest_bytes) stored,
  -- When what was there before there were counters was counted; null: it is not in them yet.
  counted_at timestamptz,
  -- When it was compared with the rows it counts.
  checked_at timestamptz
);
create index repository_usage_bytes on repository_usage (bytes desc, repository_id);
create index repository_usage_checked on repository_usage (checked_at nulls first);

-- Stored blobs; the trash is not among them.
create table store_usage (
  store text primary key,
  blobs bigint not null default 0,
  bytes bigint not null default 0
);

-- Changes that are not in the counters yet: inserts do not wait for each other, as updates of one counter would.
create table usage_delta (
  id bigint generated always as identity primary key,
  repository_id bigint,
  store text,
  -- Whose link it is about, where quotas have still to be told.
  blob_id bigint,
  blobs bigint not null default 0,
  blob_bytes bigint not null default 0,
  manifests bigint not null default 0,
  manifest_bytes bigint not null default 0,
  tags bigint not null default 0,
  -- Whether the quotas were charged in the transaction of the change.
  settled boolean not null
);
create index usage_delta_repository on usage_delta (repository_id);

-- What a repository used at the end of a day's check; a day like the one before has no row.
create table usage_day (
  repository_id bigint not null references repository (id) on delete cascade,
  day date not null,
  bytes bigint not null,
  manifests bigint not null,
  tags bigint not null,
  primary key (repository_id, day)
);
create index usage_day_day on usage_day (day);

create table quota (
  id bigint generated always as identity primary key,
  pattern text collate "C" not null,
  -- The same as a regular expression.
  regex text not null,
  measure text not null check (measure in ('logical', 'physical')),
  limit_bytes bigint not null check (limit_bytes >= 0),
  -- Set once everything that was there before the quota is counted in it.
  counted_at timestamptz,
  -- When it was compared with what its repositories use.
  checked_at timestamptz,
  created_at timestamptz not null default now(),
  created_by text,
  unique (pattern, measure)
);

-- What is left of a quota, in parts that transactions can take from at the same time. Together: limit less use.
create table quota_slot (
  -- No foreign key, here and below: pushes would hold the quota by it, and its removal wait for what they hold.
  quota_id bigint not null,
  slot integer not null,
  free bigint not null,
  primary key (quota_id, slot)
);

-- For physical quotas: how many of their repositories count the blob.
create table quota_blob (
  quota_id bigint not null,
  blob_id bigint not null,
  size bigint not null,
  links bigint not null,
  primary key (quota_id, blob_id)
);

-- What is there is counted later, in the background: the locks above are held for no longer than this takes.
insert into repository_usage (repository_id) select id from repository;
