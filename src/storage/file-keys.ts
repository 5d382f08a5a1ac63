import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { StorageKey } from './blob-store.ts'
import { entries, guarded, statOrAbsent } from './file-support.ts'

const keyPattern = /^[0-9a-f]{32}$/

/** 128 random bits as 32 lower-case hexadecimal digits. */
export function newKey(): StorageKey {
  return randomBytes(16).toString('hex') as StorageKey
}

/** The key itself, safe as a file's name. @throws TypeError when it cannot be one of this store */
export function checked(key: StorageKey): StorageKey {
  if (!keyPattern.test(key)) throw new TypeError('Not a key of this store')
  return key
}

/** The keys that name files in a directory, without those that vanish meanwhile. */
export async function* keysIn(
  directory: string,
  finished: boolean,
): AsyncGenerator<{
  readonly key: StorageKey
  readonly finished: boolean
  readonly modified: Date
}> {
  for await (const name of entries(directory)) {
    if (!keyPattern.test(name)) continue
    const found = await guarded(() => statOrAbsent(join(directory, name)))
    if (found !== undefined) yield { key: name as StorageKey, finished, modified: found.mtime }
  }
}
