import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type ReferrerRow, listReferrers as referrersPage } from '../metadata/manifests.ts'
import { findRepository, listRepositories } from '../metadata/repositories.ts'
import { listTags as tagsPage } from '../metadata/tags.ts'
import { type Caller, type RegistryContext, type VisibleNames, checkBinding } from './context.ts'

/** One keyset page; `next` is the value of `last` for the page after it, absent at the end. */
export interface Page<T> {
  readonly items: readonly T[]
  readonly next?: string
  /** What whoever reads it should know. */
  readonly warnings?: readonly string[]
}

/** The page that rows make, of which one more than `limit` was read. */
export function page<T>(rows: readonly T[], limit: number, key: (row: T) => string): Page<T> {
  const items = rows.slice(0, limit)
  const end = items.at(-1)
  return rows.length > limit && end !== undefined ? { items, next: key(end) } : { items }
}

/**
 * Tags in byte order after `last`: distribution-spec, "Listing Tags". `limit` 0 is an empty page without a next one.
 * @throws RegistryError NAME_UNKNOWN.
 */
export async function listTags(
  context: RegistryContext,
  name: RepositoryName,
  last: string,
  limit: number,
  caller: Caller,
): Promise<Page<string>> {
  const repository = await findRepository(context.db, name)
  if (repository === undefined) throw new RegistryError('NAME_UNKNOWN', { detail: { name } })
  checkBinding(caller, repository.id)
  if (limit === 0) return { items: [] }
  return page(await tagsPage(context.db, repository.id, last, limit + 1), limit, tag => tag)
}

/** Names of visible repositories that hold a manifest, in byte order after `last`. */
export async function listCatalog(
  context: RegistryContext,
  visible: VisibleNames,
  last: string,
  limit: number,
): Promise<Page<string>> {
  if (limit === 0) return { items: [] }
  return page(await listRepositories(context.db, visible, last, limit + 1), limit, name => name)
}

/** An entry of a referrers list: distribution-spec, "Listing Referrers". */
export interface Referrer {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly artifactType?: string
  readonly annotations?: Readonly<Record<string, string>>
}

/** What one statement reads at most: manifests, and about as many bytes of them. */
const REFERRERS_READ = 500
const REFERRERS_READ_BYTES = 4 * 1024 * 1024
/** Clients refuse to read more than 4 MiB of an index and some never follow a Link, so a page is as large as is safe. */
export const REFERRERS_PAGE_BYTES = 3_500_000

/**
 * Manifests whose subject is `subject`, whether or not it exists; several artifact types are alternatives. `limit`
 * undefined: as many as fit in {@link REFERRERS_PAGE_BYTES}. A repository that does not exist has none.
 */
export async function listReferrers(
  context: RegistryContext,
  name: RepositoryName,
  subject: Digest,
  ask: {
    readonly artifactTypes: readonly string[]
    readonly last: string
    readonly limit: number | undefined
  },
  caller: Caller,
): Promise<Page<Referrer>> {
  const repository = caller.repositoryId === undefined ? undefined : await findRepository(context.db, name)
  if (repository !== undefined) checkBinding(caller, repository.id)
  const items: Referrer[] = []
  let last = ask.last
  let bytes = 0
  for (;;) {
    const rows = await referrersPage(context.db, name, subject, {
      artifactTypes: ask.artifactTypes,
      last,
      limit: REFERRERS_READ,
      bytes: REFERRERS_READ_BYTES,
    })
    for (const row of rows) {
      const referrer = presentReferrer(row)
      bytes += Buffer.byteLength(JSON.stringify(referrer))
      const full = items.length > 0 && bytes > REFERRERS_PAGE_BYTES
      if (full || (ask.limit !== undefined && items.length >= ask.limit)) {
        return ask.limit === 0 ? { items } : { items, next: last }
      }
      items.push(referrer)
      last = row.digest
    }
    const read = rows.reduce((sum, row) => sum + row.size, 0)
    if (rows.length < REFERRERS_READ && read < REFERRERS_READ_BYTES) return { items }
  }
}

function presentReferrer(row: ReferrerRow): Referrer {
  return {
    mediaType: row.media_type,
    digest: row.digest,
    size: row.size,
    ...(row.artifact_type === null ? {} : { artifactType: row.artifact_type }),
    ...(row.annotations === null ? {} : { annotations: row.annotations }),
  }
}
