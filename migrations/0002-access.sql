-- Who may: principals, what they were granted, what proves them, and a record of what they did.

-- Users, robots and CI identities. Names are for people; authorisation goes by id.
create table principal (
  id bigint generated always as identity primary key,
  kind text not null check (kind in ('user', 'robot', 'ci')),
  name text collate "C" not null unique,
  -- Users only: a scrypt hash in its own format.
  password_hash text,
  -- The same person at an identity provider, for sign-on.
  external_issuer text,
  external_subject text,
  -- Raised to kill every token that was issued before.
  epoch bigint not null default 0,
  disabled_at timestamptz,
  expires_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  created_by text,
  unique (external_issuer, external_subject)
);

create table principal_group (
  id bigint generated always as identity primary key,
  name text collate "C" not null unique,
  external_id text unique,
  created_at timestamptz not null default now()
);

create table group_member (
  group_id bigint not null references principal_group (id) on delete cascade,
  principal_id bigint not null references principal (id) on delete cascade,
  primary key (group_id, principal_id)
);
create index group_member_principal on group_member (principal_id);

-- What a subject may do on the repositories that a pattern names. There are no denials: what is not granted is refused.
create table access_grant (
  id bigint generated always as identity primary key,
  subject text not null check (subject in ('principal', 'group', 'authenticated', 'anonymous')),
  principal_id bigint references principal (id) on delete cascade,
  group_id bigint references principal_group (id) on delete cascade,
  pattern text collate "C" not null,
  actions text[] not null check (actions <@ '{pull,push,delete,admin}' and cardinality(actions) > 0),
  created_at timestamptz not null default now(),
  created_by text,
  check ((subject = 'principal') = (principal_id is not null) and (subject = 'group') = (group_id is not null))
);
create unique index access_grant_once on access_grant
  (subject, coalesce(principal_id, 0), coalesce(group_id, 0), pattern);
create index access_grant_principal on access_grant (principal_id) where principal_id is not null;
create index access_grant_group on access_grant (group_id) where group_id is not null;

-- A long-lived token of a user (personal) or the one of a robot. `scopes` narrows what its principal may.
create table access_token (
  id bigint generated always as identity primary key,
  principal_id bigint not null references principal (id) on delete cascade,
  name text collate "C" not null,
  scopes jsonb,
  expires_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now(),
  unique (principal_id, name)
);

-- Up to two secrets of a token are valid at once, so that one can be replaced without a gap. Only hashes are kept.
create table token_secret (
  id bigint generated always as identity primary key,
  token_id bigint not null references access_token (id) on delete cascade,
  hash bytea not null unique,
  created_at timestamptz not null default now(),
  expires_at timestamptz
);
create index token_secret_token on token_secret (token_id);

-- Keys that sign our tokens. A key is published before it signs, and after that for as long as its tokens live.
create table signing_key (
  kid text primary key,
  private_jwk jsonb not null,
  public_jwk jsonb not null,
  created_at timestamptz not null default now(),
  signs_from timestamptz not null,
  retires_at timestamptz
);

-- Which identity tokens of a CI system stand for which principal.
create table trust_rule (
  id bigint generated always as identity primary key,
  principal_id bigint not null unique references principal (id) on delete cascade,
  name text collate "C" not null unique,
  issuer text not null,
  audience text not null,
  claims jsonb not null,
  single_use boolean not null default false,
  allow_pull_request_target boolean not null default false,
  session_seconds integer not null check (session_seconds between 60 and 86400),
  created_at timestamptz not null default now(),
  created_by text
);
create index trust_rule_issuer on trust_rule (issuer);

-- Identity tokens that may be used once and were.
create table used_jti (
  issuer text not null,
  jti text not null,
  expires_at timestamptz not null,
  primary key (issuer, jti)
);
create index used_jti_expiry on used_jti (expires_at);

-- What a client got in place of a password: good for access tokens until it expires. Only its hash is kept.
create table refresh_token (
  hash bytea primary key,
  principal_id bigint not null references principal (id) on delete cascade,
  epoch bigint not null,
  scopes jsonb,
  provenance jsonb,
  expires_at timestamptz not null,
  created_at timestamptz not null default now()
);
create index refresh_token_expiry on refresh_token (expires_at);
create index refresh_token_principal on refresh_token (principal_id);

-- Logins, refusals, changes of access and acts of administrators. Removed by age.
create table audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  kind text not null,
  outcome text not null check (outcome in ('ok', 'refused')),
  actor_id bigint,
  actor text not null,
  client text,
  request_id text,
  detail jsonb not null
);
create index audit_at on audit (at);
create index audit_actor on audit (actor, id);

-- Which commit and run pushed a manifest, where a CI identity did.
alter table manifest add column provenance jsonb;
