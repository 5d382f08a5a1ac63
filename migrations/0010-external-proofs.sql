-- Users that somebody else vouches for: what they prove themselves by there.

-- A hash of it: when it changes the epoch is raised, because whoever logged in by the former one must not go on. Null:
-- nobody vouches for the user any more.
alter table principal add column external_proof text;
