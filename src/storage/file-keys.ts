import { join } from 'node:path'
import type { StoredItem } from './blob-store.ts'
import { entries, guarded, statOrAbsent } from './file-support.ts'
import { isKey } from './keys.ts'

/** The keys that name files in a directory, without those that vanish meanwhile. */
export async function* keysIn(directory: string, finished: boolean): AsyncGenerator<StoredItem> {
  for await (const key of entries(directory)) {
    if (!isKey(key)) continue
    const found = await guarded(() => statOrAbsent(join(directory, key)))
    if (found === undefined) continue
    const item = { key, modified: found.mtime }
    yield finished ? item : { ...item, unfinished: { key, offset: 0 } }
  }
}
