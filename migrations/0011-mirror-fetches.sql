-- Blobs that one process fetches from an upstream for all of them. The id is new with every owner: whoever takes a fetch
-- over names the id it takes it from, so one of many wins, and what the former owner writes under its own id is void.
create table mirror_fetch (
  repository text collate "C" not null,
  digest text collate "C" not null,
  id uuid not null,
  -- What the other processes sign their requests to the owner with.
  key text not null,
  -- Where the owner is reached, or the directory in which it keeps the bytes by the name of file.
  address text,
  directory uuid,
  file text,
  size bigint,
  lease_until timestamptz not null,
  primary key (repository, digest)
);
