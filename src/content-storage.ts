import type { Config } from './config.ts'
import type { Log } from './log.ts'
import type { Database } from './metadata/database.ts'
import { findStoreNames } from './metadata/stores.ts'
import { meteredStore } from './metrics/metered-registry.ts'
import type { Metrics } from './metrics/metrics.ts'
import type { Readiness } from './routes/health.ts'
import { openFilesystemStore } from './storage/filesystem.ts'
import { checkBucket } from './storage/s3-check.ts'
import { openS3Store } from './storage/s3.ts'
import { type OpenStore, Stores } from './storage/stores.ts'

/** What a directory has for its transfers where a bucket is configured as well. */
const BESIDE_S3_BYTES = 64 * 2 ** 20

/** Opens every store that is configured, in working order. @throws StoreUnavailable, BucketUnusable */
export async function openStores({ storage }: Config, metrics: Metrics, opened: AsyncDisposableStack): Promise<Stores> {
  const open = async (name: (typeof storage.stores)[number]): Promise<OpenStore> =>
    name === 's3' ? await openBucket(storage, metrics, opened) : await openDirectory(storage, metrics, opened)
  const stores: OpenStore[] = []
  for (const name of storage.stores) stores.push(await open(name))
  const [first, ...others] = stores
  if (first === undefined) throw new TypeError('no store is configured')
  return new Stores(first, ...others)
}

async function openDirectory(
  { stores, uploadMemoryBytes, filesystem }: Config['storage'],
  metrics: Metrics,
  opened: AsyncDisposableStack,
): Promise<OpenStore> {
  const bufferBytes = stores.includes('s3') ? Math.min(uploadMemoryBytes, BESIDE_S3_BYTES) : uploadMemoryBytes
  const store = await openFilesystemStore({ directory: filesystem.directory, bufferBytes })
  opened.defer(() => store.close())
  return { store: meteredStore(store, metrics) }
}

async function openBucket(
  { uploadMemoryBytes, s3 }: Config['storage'],
  metrics: Metrics,
  opened: AsyncDisposableStack,
): Promise<OpenStore> {
  const store = openS3Store({ ...s3, uploadMemoryBytes })
  opened.defer(() => store.close())
  await checkBucket(store.bucket)
  const metered = meteredStore(store, metrics)
  return s3.redirect ? { store: metered, presigning: store } : { store: metered }
}

/** Whether the index and every store answer, and no row names a store that is not configured. What fails is logged. */
export async function readiness(db: Database, stores: Stores, log: Log): Promise<Readiness> {
  try {
    const missing = (await findStoreNames(db)).filter(name => !stores.names.includes(name))
    for (const store of stores.all) await store.check()
    const notes = missing.map(name => `the index names the store ${name}, which is not configured`)
    if (missing.length > 0) log.error({ missing }, 'not ready: the index names a store that is not configured')
    return { isReady: missing.length === 0, notes }
  } catch (err) {
    log.warn({ err }, 'not ready')
    return { isReady: false, notes: [] }
  }
}
