import { stat } from 'node:fs/promises'

/** Told of what happened to files. */
export interface FileObserver {
  /** Reads them anew. What it throws counts as a fault of the files. */
  changed(): Promise<void>
  /** They cannot be read or used as they are now: said once, until they change again. */
  failed(error: unknown): void
}

/** Files are looked at this often: watching does not see how Kubernetes swaps the links of a secret. */
const LOOK_MS = 5_000

/**
 * Looks at files again and again, and tells `observer` when one of them, or the link to it, was replaced, went away or
 * came back. @returns what ends it, when nothing of it runs any more.
 */
export async function watchFiles(
  paths: readonly string[],
  observer: FileObserver,
  lookMs = LOOK_MS,
): Promise<() => Promise<void>> {
  let seen = (await look(paths)).stamp
  let looking: Promise<void> = Promise.resolve()
  const compare = async (): Promise<void> => {
    const { stamp, error } = await look(paths)
    if (stamp === seen) return
    seen = stamp
    try {
      if (error !== undefined) throw error
      await observer.changed()
    } catch (fault) {
      observer.failed(fault)
    }
  }
  const timer = setInterval(() => {
    looking = looking.then(compare)
  }, lookMs).unref()
  return async () => {
    clearInterval(timer)
    await looking
  }
}

/** What changes when a file, or the link to it, is replaced; and why one of them cannot be looked at. */
async function look(paths: readonly string[]): Promise<{ readonly stamp: string; readonly error?: Error }> {
  try {
    const stats = await Promise.all(paths.map(path => stat(path)))
    // Whoever writes a file can set its time of change, but not the one that its system keeps (`ctime`).
    const stamps = stats.map(({ dev, ino, ctimeMs, mtimeMs, size }) => [dev, ino, ctimeMs, mtimeMs, size].join(' '))
    return { stamp: stamps.join(' ') }
  } catch (cause) {
    const error = cause instanceof Error ? cause : new Error(String(cause))
    return { stamp: error.message, error }
  }
}
