import { constants } from 'node:fs'
import { readFile, rename } from 'node:fs/promises'
import { type OpenFile, guarded, hasCode, removed } from './file-support.ts'
import { newKey } from './keys.ts'

/** The text of a file, or undefined where there is none. @throws StoreUnavailable */
export async function readMarkerFile(path: string): Promise<string | undefined> {
  return await guarded(async () => {
    try {
      return await readFile(path, 'utf8')
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    }
  })
}

/** Puts a synced file with this text in the place of the one before; its directory is for the caller to sync. */
export async function writeMarkerFile(path: string, text: string, open: OpenFile): Promise<void> {
  await guarded(async () => {
    const fresh = `${path}.${newKey()}`
    try {
      const file = await open(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL)
      try {
        await file.writeFile(text)
        await file.datasync()
      } finally {
        await file.close()
      }
      await rename(fresh, path)
    } catch (error) {
      await removed(fresh)
      throw error
    }
  })
}
