import { stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** Told of what happened to files. */
export interface FileObserver {
  /** Reads them anew. What it throws counts as a fault of the files. */
  changed(): Promise<void>
  /** They cannot be read or used as they are now: said once, until they change again. */
  failed(error: unknown): void
}

/** Files are looked at this often: watching does not see how Kubernetes swaps the links of a secret. */
const LOOK_MS = 5_000
/** What was written in place counts once it has stayed as it is for so long: half a file means something else. */
const REST_MS = 200

/** What changes when a file, or the link to it, is replaced; and why one of them cannot be looked at. */
interface Seen {
  readonly stamp: string
  readonly error?: Error
}

/**
 * Looks at files again and again, and tells `observer` when one of them, or the link to it, was replaced, went away or
 * came back, and has come to rest. @returns what ends it, when nothing of it runs any more.
 */
export async function watchFiles(
  paths: readonly string[],
  observer: FileObserver,
  lookMs = LOOK_MS,
  look: (paths: readonly string[]) => Promise<Seen> = lookAt,
): Promise<() => Promise<void>> {
  let seen = (await look(paths)).stamp
  let looking: Promise<void> = Promise.resolve()
  const compare = async (): Promise<void> => {
    const { stamp, error } = await look(paths)
    if (stamp === seen) return
    await delay(Math.min(REST_MS, lookMs))
    // Where it is still being written the next look finds it changed again.
    if ((await look(paths)).stamp !== stamp) return
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

async function lookAt(paths: readonly string[]): Promise<Seen> {
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
