import { type SyncItemRow, nextSyncItems, setSyncOutcome } from '../metadata/sync-items.ts'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import { RegistryError } from '../oci/errors.ts'
import { BlobCopies } from './blob-copies.ts'
import { Companions } from './companions.ts'
import { type CopyOptions, type Moved, copyImage, lookAtImage } from './copy-image.ts'
import { inParallel } from './in-parallel.ts'
import type { Work } from './work.ts'

const PAGE = 200

/**
 * Copies the images that a run has listed and nothing has come of yet, or only looks, and keeps what came of each. What
 * fails with one image is its result; only what is wrong with this registry ends the run.
 */
export async function copyListed(work: Work): Promise<void> {
  const { sync, sides, signal } = work
  const { source, target } = sides
  const companions = new Companions(source)
  const options: CopyOptions = {
    source,
    target,
    blobs: new BlobCopies(source, target),
    platforms: sync.platforms,
    referrers: sync.referrers,
    companions: repository => companions.of(repository),
    signal,
  }
  await inParallel(openItems(work), sync.maxConcurrent, item => copyItem(work, options, item))
}

/** By pages of their names: what failed is not met again. */
async function* openItems({ db, run, signal }: Work): AsyncGenerator<SyncItemRow, void> {
  for (let last = { repository: '', tag: '' }; ;) {
    const page = await nextSyncItems(db, run.id, last, PAGE)
    for (const item of page) {
      signal.throwIfAborted()
      yield item
    }
    const end = page.at(-1)
    if (end === undefined || page.length < PAGE) return
    last = end
  }
}

async function copyItem(work: Work, options: CopyOptions, item: SyncItemRow): Promise<void> {
  const { run, signal, underWay, transaction } = work
  const { repository, tag, target } = item
  const image = { repository, tag, target }
  const moved: Moved = { manifests: 0, blobs: 0, bytes: 0 }
  underWay.set(image, moved)
  try {
    const outcome = run.is_dry ? await lookAtImage(options, image) : await copyImage(options, image, moved)
    await transaction(tx => setSyncOutcome(tx, run.id, { repository, tag, ...outcome, ...moved }))
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof UpstreamFailure || error instanceof RegistryError)) throw error
    const outcome = { outcome: 'failed', reason: error.message, digest: null } as const
    await transaction(tx => setSyncOutcome(tx, run.id, { repository, tag, ...outcome, ...moved }))
  } finally {
    underWay.delete(image)
  }
}
