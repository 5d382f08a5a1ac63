-- What was deleted and can be brought back, and which tags must not change.

alter table repository add column deleted_by text;
-- Set before the first row of a deleted repository goes: from then on it cannot come back.
alter table repository add column draining_at timestamptz;
create index repository_deleted on repository (deleted_at) where deleted_at is not null;
create index repository_deleted_name on repository (name, deleted_at) where deleted_at is not null;

-- What changed the tag: push, delete, manifest-delete, undelete, rollback. Null in rows that are older than this column.
alter table tag_history add column action text;
create index tag_history_removed on tag_history (repository_id, old_digest) where new_digest is null;

-- Tags that must not change, or only by some. Repositories by a pattern as grants have it; tags by a glob, or by a
-- regular expression between slashes.
create table tag_rule (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique,
  pattern text collate "C" not null,
  tags text collate "C" not null,
  immutable boolean not null,
  protected boolean not null,
  -- Whether retention may remove such tags all the same.
  may_expire boolean not null,
  created_at timestamptz not null default now(),
  created_by text,
  check (immutable or protected)
);

-- Who may create, move and delete the tags of a rule that protects them.
create table tag_rule_writer (
  rule_id bigint not null references tag_rule (id) on delete cascade,
  principal_id bigint references principal (id) on delete cascade,
  group_id bigint references principal_group (id) on delete cascade,
  check ((principal_id is null) <> (group_id is null))
);
create unique index tag_rule_writer_once on tag_rule_writer (rule_id, coalesce(principal_id, 0), coalesce(group_id, 0));
create index tag_rule_writer_principal on tag_rule_writer (principal_id) where principal_id is not null;
create index tag_rule_writer_group on tag_rule_writer (group_id) where group_id is not null;
