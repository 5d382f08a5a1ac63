// A registry that pushes, moves tags and collects until it is killed: collector.ts DATA_DIR DATABASE_URL SEED MODE. Without a
// URL its index is the embedded one. Says `checked` when all it found is whole, then a line after every batch. MODE
// `drain` deletes every tag instead, collects all of it, and says what is left.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expireUploads } from '../../src/gc/expire-uploads.ts'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweep } from '../../src/gc/sweep.ts'
import { openEmbedded } from '../../src/metadata/embedded.ts'
import { migrate } from '../../src/metadata/migrate.ts'
import { openPostgres } from '../../src/metadata/postgres.ts'
import { releaseAllUploads } from '../../src/metadata/uploads.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import { Stores } from '../../src/storage/stores.ts'
import { pullFault } from '../gc/model-pull.ts'
import { seeded } from '../support/random.ts'
import { PUSHER, pushBlob, pushImage } from '../support/registry.ts'

const [dataDir = '', url = '', seed = '', mode = ''] = process.argv.slice(2)
const OPTIONS = { batch: 4, leaseMs: 50, trashGraceMs: 20 }
const NAME = 'crash/collected'
const TAGS = ['a', 'b', 'c']
const say = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

const db = await (url === '' ? openEmbedded({ directory: join(dataDir, 'index') }) : openPostgres({ url }))
await migrate(db)
// Whoever had them was killed.
await db.transaction(releaseAllUploads)
const store = await openFilesystemStore({ directory: join(dataDir, 'storage'), bufferBytes: 2 ** 20 })
const lifetimes = { leaseMs: 400, untaggedRetentionMs: 50, deleteGraceMs: 50, uploadExpiryMs: 2_000, trashGraceMs: 20 }
const registry = createRegistry({
  db,
  stores: new Stores({ store }),
  lifetimes,
  requireBlobs: true,
  requireChildren: false,
  allowChildDelete: false,
})
const name = parseName(NAME)
const tags = TAGS.map(text => ({ text, tag: parseReference(text).tag ?? raise(`${text} is no tag`) }))

await check()
if (mode === 'drain') await drain()
else await work()

/** Everything that a tag names can be pulled, and the bytes of every blob are there. */
async function check(): Promise<void> {
  let images = 0
  for (const { tag } of tags) {
    const fault = await pullFault({ registry, store }, name, tag)
    if (fault !== undefined) raise(fault)
    images += 1
  }
  const blobs = await db.query<{ digest: string; storage_key: StorageKey }>('select digest, storage_key from blob')
  for (const { digest, storage_key: key } of blobs) {
    if ((await store.stat(key)) === undefined) raise(`the bytes of ${digest} are gone`)
  }
  say({ checked: images, blobs: blobs.length })
}

async function collect(): Promise<number> {
  const onBatch = (batch: object): Promise<void> => {
    say(batch)
    return Promise.resolve()
  }
  const uploads = await expireUploads(db)
  const { manifests, links, blobs } = await sweep(db, OPTIONS, onBatch)
  const { purged } = await purgeTrash(db, store, { batch: 3, onBatch })
  return uploads + manifests + links + blobs + purged
}

async function work(): Promise<never> {
  const random = seeded(Number(seed))
  for (;;) {
    for (let count = random.between(1, 3); count > 0; count--) {
      const layer = await pushBlob(registry, NAME, randomBytes(random.between(1, 200)))
      await pushImage(registry, NAME, random.pick(TAGS), { layers: [layer] })
    }
    await delay(random.between(0, 120))
    await collect()
  }
}

async function drain(): Promise<void> {
  for (const { text, tag } of tags) {
    const isThere = await registry.statManifest(name, { tag }, { mayPush: false }).then(
      () => true,
      () => false,
    )
    if (isThere) await registry.deleteManifest(name, parseReference(text), PUSHER)
  }
  const rowsLeft = async (): Promise<number> => {
    const [row] = await db.query<{ rows: number }>(
      `select ((select count(*) from blob) + (select count(*) from trash) + (select count(*) from upload)
             + (select count(*) from manifest) + (select count(*) from repository_blob))::int as rows`,
    )
    return row?.rows ?? Number.NaN
  }
  while ((await rowsLeft()) > 0) {
    // What a killed process had begun to do is taken again after a while, which is over now.
    await db.transaction(tx =>
      tx.script(`update trash set purging_at = null, purge_after = 'epoch'; update upload set expires_at = 'epoch';
        update manifest set lease_until = 'epoch' where lease_until < 'infinity';
        update repository_blob set lease_until = 'epoch' where lease_until < 'infinity'`),
    )
    await collect()
  }
  const left: string[] = []
  for await (const item of store.list()) left.push(item.key)
  say({ left })
  await store.close()
  await db.close()
}

function raise(fault: string): never {
  throw new Error(fault)
}
