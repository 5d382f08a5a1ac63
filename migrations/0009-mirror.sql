-- What mirrors know of the tags they hold: when the upstream last said what a tag names, and when it was last asked for.
create table mirrored_tag (
  repository_id bigint not null references repository (id) on delete cascade,
  name text collate "C" not null,
  confirmed_at timestamptz not null,
  used_at timestamptz not null,
  primary key (repository_id, name)
);
create index mirrored_tag_used on mirrored_tag (used_at);
