-- Running mirrors: those that were added by the API, what they did, and what of their content goes when there is no room.

-- Mirrors beside those of the settings.
create table mirror (
  id bigint generated always as identity primary key,
  prefix text collate "C" not null unique,
  -- Raised with every change, so that processes see that there was one.
  revision bigint not null default 1,
  settings jsonb not null,
  username text,
  password text,
  created_at timestamptz not null default now(),
  created_by text,
  check ((username is null) = (password is null))
);

-- Counted in memory by every process and added up here, by the mirror's prefix: settings have no rows to refer to.
create table mirror_count (
  prefix text collate "C" not null,
  name text collate "C" not null,
  amount bigint not null,
  primary key (prefix, name)
);

-- The last failures of each upstream.
create table mirror_failure (
  id bigint generated always as identity primary key,
  prefix text collate "C" not null,
  at timestamptz not null,
  kind text not null,
  message text not null
);
create index mirror_failure_prefix on mirror_failure (prefix, id);

create table mirror_state (
  prefix text collate "C" primary key,
  -- Since when it has been counted.
  since timestamptz not null default now(),
  -- What the upstream said last about our quota there.
  rate_limit bigint,
  rate_remaining bigint,
  rate_at timestamptz,
  -- Bytes of the copies, each blob once and each blob once a repository, when they were last measured.
  bytes bigint,
  logical_bytes bigint,
  measured_at timestamptz,
  -- Which process makes room, until when.
  evicting uuid,
  evicting_until timestamptz
);

-- When copies were last asked for, to minutes. Nothing refers to what it is about: noting a use waits for no push and no
-- deletion, and rows of what is gone are pruned.
create table mirrored_use (
  repository_id bigint not null,
  digest text collate "C" not null,
  prefix text collate "C" not null,
  is_blob boolean not null,
  used_at timestamptz not null,
  primary key (repository_id, digest)
);
create index mirrored_use_order on mirrored_use (prefix, used_at);
create index mirrored_use_age on mirrored_use (used_at);
