import { readFile, stat } from 'node:fs/promises'
import { type SecureContextOptions, type Server, createSecureContext } from 'node:tls'

/** Paths of the PEM files: the certificate with its chain, and its private key. */
export interface TlsFiles {
  readonly cert: string
  readonly key: string
}

/** The oldest version that is spoken: RFC 8996 retires those before. */
const MIN_VERSION = 'TLSv1.2'
/** Files are looked at this often: watching does not see how Kubernetes swaps the links of a secret. */
const LOOK_MS = 5_000

/** Reads certificate and key. @throws where they cannot be read, or do not belong together. */
export async function readTls(files: TlsFiles): Promise<SecureContextOptions> {
  const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)])
  const options = { cert, key, minVersion: MIN_VERSION } as const
  createSecureContext(options)
  return options
}

/** Told of what happened to the files. */
export interface TlsObserver {
  reloaded(): void
  /** The new files cannot be used; the former go on. */
  failed(error: unknown): void
}

/**
 * Gives a running server the new certificate when the files change; connections that are open keep the former. Files that
 * cannot be used are reported once and looked at again when they change. @returns what ends it.
 */
export async function reloadTls(server: Server, files: TlsFiles, observer: TlsObserver): Promise<() => Promise<void>> {
  let seen = await stampOf(files)
  let looking: Promise<void> = Promise.resolve()
  const look = async (): Promise<void> => {
    try {
      const stamp = await stampOf(files)
      if (stamp === seen) return
      seen = stamp
      server.setSecureContext(await readTls(files))
      observer.reloaded()
    } catch (error) {
      observer.failed(error)
    }
  }
  const timer = setInterval(() => {
    looking = looking.then(look)
  }, LOOK_MS).unref()
  return async () => {
    clearInterval(timer)
    await looking
  }
}

/** What changes when a file, or the link to it, is replaced. */
async function stampOf({ cert, key }: TlsFiles): Promise<string> {
  const stats = await Promise.all([cert, key].map(path => stat(path)))
  return stats.map(({ dev, ino, mtimeMs, size }) => `${dev} ${ino} ${mtimeMs} ${size}`).join(' ')
}
