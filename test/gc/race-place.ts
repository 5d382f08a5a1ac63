import type { BlobStore } from '../../src/storage/blob-store.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import { type S3StoreOptions, openS3Store } from '../../src/storage/s3.ts'

/** Where the processes of a race keep their bytes: what they are told as JSON. */
export type RacePlace = { readonly directory: string } | { readonly s3: S3StoreOptions }

/** Opens a process's own store at the place that all share. */
export async function openPlace(place: RacePlace): Promise<BlobStore> {
  if ('s3' in place) return openS3Store(place.s3)
  return await openFilesystemStore({ directory: place.directory, bufferBytes: 8 * 2 ** 20 })
}
