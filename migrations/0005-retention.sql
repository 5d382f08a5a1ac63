-- When tags and manifests were pulled, and what retention removes.

-- Pulls are counted in memory and added up here now and then. The tables are their own, and nothing here refers to a tag
-- or a manifest: adding counts up waits for no push, and no push waits for it. What is left of gone ones is pruned.
create table tag_pull (
  repository_id bigint not null,
  name text collate "C" not null,
  pulls bigint not null,
  last_pulled_at timestamptz not null,
  primary key (repository_id, name)
);
create table manifest_pull (
  manifest_id bigint primary key,
  pulls bigint not null,
  last_pulled_at timestamptz not null
);

-- Since when pulls have been counted: what was not pulled before is not known to be unused.
create table pull_counting (
  since timestamptz not null
);
insert into pull_counting (since) values (now());

-- Which tags of which repositories stay; what no rule keeps goes.
create table retention_policy (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique,
  -- Raised with every change: a plan of an earlier one is not carried out.
  revision bigint not null default 1,
  pattern text collate "C" not null,
  tags text[] not null check (cardinality(tags) > 0),
  rules jsonb not null,
  untagged boolean not null,
  -- A run that would remove more of a repository's tags than this share, in per cent, asks first.
  max_share integer not null check (max_share between 0 and 100),
  schedule text,
  time_zone text not null,
  next_run_at timestamptz,
  created_at timestamptz not null default now(),
  created_by text
);
create index retention_policy_due on retention_policy (next_run_at) where next_run_at is not null;

-- A plan and what came of it. It is worked off by whichever process holds its lease, and goes on after one that died.
create table retention_run (
  id bigint generated always as identity primary key,
  policy_id bigint references retention_policy (id) on delete set null,
  policy text collate "C" not null,
  policy_revision bigint not null,
  -- The policy's repositories: who administers them may see what the run did, whatever has become of the policy.
  pattern text collate "C" not null,
  goal text not null check (goal in ('plan', 'run')),
  state text not null check (state in ('waiting', 'asks', 'done', 'failed')),
  is_confirmed boolean not null,
  asked_by text not null,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  -- The repository that was planned last, and whether all were.
  cursor text collate "C" not null default '',
  is_planned boolean not null default false,
  lease_until timestamptz not null default '-infinity',
  epoch bigint not null default 0,
  error text
);
create index retention_run_waiting on retention_run (id) where state = 'waiting';
create index retention_run_policy on retention_run (policy, id);
create index retention_run_created on retention_run (created_at);

-- What a run found, by repository, and what it did.
create table retention_repository (
  run_id bigint not null references retention_run (id) on delete cascade,
  repository_id bigint not null,
  name text collate "C" not null,
  planned_at timestamptz not null,
  tags bigint not null,
  going bigint not null,
  untagged bigint not null,
  removed bigint not null default 0,
  spared bigint not null default 0,
  -- More would go than the policy lets go without asking.
  is_held boolean not null,
  is_done boolean not null default false,
  primary key (run_id, repository_id)
);

-- Each tag, or untagged manifest by its digest: whether it goes, by which rule, why, and what came of it.
create table retention_item (
  run_id bigint not null references retention_run (id) on delete cascade,
  repository_id bigint not null,
  name text collate "C" not null,
  digest text collate "C" not null,
  goes boolean not null,
  rule integer,
  reason text not null,
  outcome text check (outcome in ('removed', 'spared')),
  primary key (run_id, repository_id, name)
);
