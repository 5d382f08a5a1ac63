-- Deleting a repository, and bringing it back, tells physical quotas of its links in batches.

-- Quotas that still count links of this deleted repository: those of blobs with ids above left_until.
alter table repository add column leaving bigint[] not null default '{}';
alter table repository add column left_until bigint not null default 0;
-- Until then somebody brings it back: links are being counted again, and it is neither drained nor left.
alter table repository add column returning_until timestamptz;
create index repository_leaving on repository (id) where leaving <> '{}';
