-- What the collector looks at, so that an idle registry costs it nothing.

-- Set when a link of the blob went: only such blobs can have lost their last one.
alter table blob add column unlinked_at timestamptz;
create index blob_unlinked on blob (unlinked_at) where unlinked_at is not null;
