import type { Queryable } from '../metadata/database.ts'
import {
  type Lingering,
  type UseRow,
  readClock,
  subjectsOf,
  tagUses,
  untaggedUses,
} from '../metadata/retention-facts.ts'
import { type RepositoryFacts, type TagFacts, type UseTimes, subjectOf } from './facts.ts'

const PAGE = 5_000

/**
 * What is known of a repository, read page by page; about 600 bytes a tag. `lingering` undefined: nothing of
 * manifests without a tag; otherwise those that the collector leaves alone for longer than that.
 */
export async function loadFacts(
  db: Queryable,
  repositoryId: number,
  lingering: Lingering | undefined,
): Promise<RepositoryFacts> {
  const tags: TagFacts[] = []
  for (let last = ''; ;) {
    const rows = await tagUses(db, repositoryId, last, PAGE)
    for (const row of rows) tags.push({ ...timesOf(row), name: row.name, subject: row.subject ?? undefined })
    if (rows.length < PAGE) break
    last = rows.at(-1)?.name ?? last
  }
  const untagged: UseTimes[] = []
  for (let last = ''; lingering !== undefined;) {
    const rows = await untaggedUses(db, repositoryId, lingering, last, PAGE)
    untagged.push(...rows.map(timesOf))
    if (rows.length < PAGE) break
    last = rows.at(-1)?.digest ?? last
  }
  const subjects = await loadSubjects(db, repositoryId, tags)
  // Read last: nothing that was read is younger.
  const { now, since } = await readClock(db)
  return { now, countedSince: since, tags, untagged, subjects }
}

async function loadSubjects(
  db: Queryable,
  repositoryId: number,
  tags: readonly TagFacts[],
): Promise<ReadonlyMap<string, readonly string[]>> {
  const wanted = [...new Set(tags.flatMap(tag => subjectOf(tag) ?? []))]
  const subjects = new Map<string, readonly string[]>()
  for (let start = 0; start < wanted.length; start += PAGE) {
    const rows = await subjectsOf(db, repositoryId, wanted.slice(start, start + PAGE))
    for (const { digest, indexes } of rows) subjects.set(digest, indexes)
  }
  return subjects
}

function timesOf(row: UseRow): UseTimes {
  return { digest: row.digest, pushedAt: row.pushed_at, pulledAt: row.pulled_at ?? undefined }
}
