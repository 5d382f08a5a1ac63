import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'

/** Two directories, as a registry has them while its content moves. */
export interface TwoStores {
  readonly old: BlobStore
  readonly next: BlobStore
  close(): Promise<void>
}

/** Opens stores with the names `old` and `next` in fresh directories. */
export async function openTwoStores(): Promise<TwoStores> {
  const directory = await mkdtemp(join(tmpdir(), 'berth-test-stores-'))
  const open = (name: string): Promise<BlobStore> =>
    openFilesystemStore({ name, directory: join(directory, name), bufferBytes: 8 * 2 ** 20 })
  const [old, next] = await Promise.all([open('old'), open('next')])
  return {
    old,
    next,
    async close() {
      await Promise.all([old.close(), next.close()])
      await rm(directory, { recursive: true, force: true })
    },
  }
}
