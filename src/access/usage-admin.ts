import { patternFault, patternRegex } from '../oci/repository-pattern.ts'
import * as rows from '../metadata/usage.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, EVERYTHING, administeredBy, requireAdmin } from './actor.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

/** What a repository uses, in bytes and numbers. */
export interface UsageInfo {
  readonly repository: string
  /** Blobs, each once, and manifests. */
  readonly bytes: number
  readonly blobBytes: number
  readonly manifestBytes: number
  /** Of the blobs that no other repository uses, and of the others. */
  readonly ownBytes: number
  readonly sharedBytes: number
  readonly blobs: number
  readonly manifests: number
  readonly tags: number
  /** False after an upgrade until what was there before is counted: the figures are too low. */
  readonly counted: boolean
  /** How many bytes more than on that day; null where it is not known. */
  readonly growth: { readonly bytes: number; readonly since: string } | null
}

/**
 * What repositories of a pattern use, the largest first; those that the actor administers. Figures are of now, the
 * order may be some seconds old. @throws RegistryError DENIED, INVALID.
 */
export async function listUsage(
  context: AdministrationContext,
  actor: Actor,
  ask: { readonly pattern: string; readonly days: number },
  { last, limit }: PageRequest,
): Promise<Page<UsageInfo>> {
  const { pattern } = ask
  const fault = patternFault(pattern)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: `${pattern.slice(0, 300)}: ${fault}` })
  const isWithin = await administeredBy(context.db, actor)
  const page = await rows.listUsage(context.db, {
    regex: patternRegex(pattern),
    after: afterOf(last),
    days: ask.days,
    limit: limit + 1,
  })
  return pageOf(page, limit, {
    key: row => `${row.sort_bytes}-${row.repository_id}`,
    present,
    keep: ({ name }) => isWithin([name]),
  })
}

function afterOf(last: string): { bytes: number; repositoryId: number } | undefined {
  if (last === '') return undefined
  const [bytes, repositoryId] = last.split('-').map(idOf)
  if (bytes === undefined || repositoryId === undefined) {
    throw new RegistryError('INVALID', { message: 'query.last: is not what a page said under next' })
  }
  return { bytes, repositoryId }
}

function present(row: rows.UsageRow): UsageInfo {
  const bytes = row.blob_bytes + row.manifest_bytes
  const { former_bytes: former, former_day: since } = row
  return {
    repository: row.name,
    bytes,
    blobBytes: row.blob_bytes,
    manifestBytes: row.manifest_bytes,
    ownBytes: row.own_bytes,
    sharedBytes: Math.max(row.blob_bytes - row.own_bytes, 0),
    blobs: row.blobs,
    manifests: row.manifests,
    tags: row.tags,
    counted: row.counted_at !== null,
    growth: former === null || since === null ? null : { bytes: bytes - former, since },
  }
}

/** What the whole registry uses: logical bytes count a blob once for each repository, physical ones are in the stores. */
export interface TotalUsage {
  readonly repositories: number
  readonly manifests: number
  readonly tags: number
  readonly logicalBytes: number
  readonly physicalBytes: number
  readonly stores: readonly {
    readonly store: string
    readonly blobs: number
    readonly bytes: number
    readonly trashBytes: number
  }[]
}

/** What the whole registry uses. @throws RegistryError DENIED. */
export async function totalUsage(context: AdministrationContext, actor: Actor): Promise<TotalUsage> {
  await requireAdmin(context.db, actor, [EVERYTHING])
  const { repositories, manifests, tags, bytes } = await rows.totalUsage(context.db)
  const stores = (await rows.storeUsage(context.db)).map(({ trash_bytes: trashBytes, ...store }) => ({
    ...store,
    trashBytes,
  }))
  const physicalBytes = stores.reduce((sum, store) => sum + store.bytes + store.trashBytes, 0)
  return { repositories, manifests, tags, logicalBytes: bytes, physicalBytes, stores }
}
