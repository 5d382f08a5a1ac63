import { randomBytes } from 'node:crypto'
import type { StorageKey } from './blob-store.ts'

const keyPattern = /^[0-9a-f]{32}$/

/** 128 random bits as 32 lower-case hexadecimal digits. */
export function newKey(): StorageKey {
  return randomBytes(16).toString('hex') as StorageKey
}

/** Whether a text has the form of {@link newKey}'s. */
export function isKey(text: string): text is StorageKey {
  return keyPattern.test(text)
}

/** The key itself, safe as a name. @throws TypeError when it cannot be one of ours */
export function checked(key: StorageKey): StorageKey {
  if (!isKey(key)) throw new TypeError('Not a key of this store')
  return key
}
