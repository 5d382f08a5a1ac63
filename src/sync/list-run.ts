import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import { insertEndedItem, insertSyncItems } from '../metadata/sync-items.ts'
import { setListed } from '../metadata/sync-runs.ts'
import { RegistryError } from '../oci/errors.ts'
import { createdOf } from './created.ts'
import { inParallel } from './in-parallel.ts'
import { isGlob, newestCreated, selectTags, targetName } from './selection.ts'
import type { Source } from './sides.ts'
import type { Sync, Work } from './work.ts'

const ITEMS = 5_000
/** Images whose age is looked up at once. */
const READS_AT_ONCE = 4

/**
 * Lists the images of a run, repository by repository in the order of their names, and goes on where another process
 * stopped. A repository that cannot be listed is an item that failed.
 * @throws UpstreamFailure where the source does not say which repositories it has.
 */
export async function listImages({ run, sync, sides, signal, transaction }: Work): Promise<void> {
  if (run.is_listed) return
  const { source } = sides
  for (const repository of await repositoriesOf(sync, source)) {
    if (repository <= run.cursor) continue
    signal.throwIfAborted()
    const target = targetName(sync, repository)
    const listed =
      target === undefined ? 'its name would not be a name at the target' : await tagsOf(sync, source, repository)
    await transaction(async tx => {
      if (typeof listed === 'string') {
        const item = { repository, tag: '', target: target ?? '', reason: listed }
        await insertEndedItem(tx, run.id, { ...item, outcome: target === undefined ? 'skipped' : 'failed' })
      }
      const tags = typeof listed === 'string' ? [] : listed
      for (let start = 0; start < tags.length; start += ITEMS) {
        await insertSyncItems(tx, run.id, { repository, target: target ?? '' }, tags.slice(start, start + ITEMS))
      }
      await setListed(tx, run.id, { cursor: repository })
    })
  }
  await transaction(tx => setListed(tx, run.id, 'all'))
}

async function repositoriesOf({ repositories }: Sync, source: Source): Promise<readonly string[]> {
  const names = new Set<string>()
  for (const pattern of repositories) {
    const found = isGlob(pattern) ? await source.repositories(pattern) : [pattern]
    for (const name of found) names.add(name)
  }
  // In byte order, as the index compares the cursor.
  return [...names].toSorted((one, other) => (one < other ? -1 : 1))
}

/** The tags of a repository that are wanted, or why it cannot be listed. */
async function tagsOf(sync: Sync, source: Source, repository: string): Promise<readonly string[] | string> {
  try {
    const tags = selectTags(sync.tags, await source.tags(repository))
    const { newest, newestBy } = sync.tags
    if (newest === undefined || newestBy === 'version' || tags.length <= newest) return tags
    const known: { tag: string; created: Date | undefined }[] = []
    await inParallel(tags, READS_AT_ONCE, async tag => {
      known.push({ tag, created: await createdOf(source, repository, tag) })
    })
    return newestCreated(newest, known)
  } catch (error) {
    if (error instanceof UpstreamFailure || error instanceof RegistryError) return error.message
    throw error
  }
}
