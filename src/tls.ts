import { readFile } from 'node:fs/promises'
import { type SecureContextOptions, type Server, createSecureContext } from 'node:tls'
import { watchFiles } from './file-watch.ts'

/** Paths of the PEM files: the certificate with its chain, and its private key. */
export interface TlsFiles {
  readonly cert: string
  readonly key: string
}

/** The oldest version that is spoken: RFC 8996 retires those before. */
const MIN_VERSION = 'TLSv1.2'

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
 * are gone or cannot be used are reported once and looked at again when they change. @returns what ends it.
 */
export async function reloadTls(server: Server, files: TlsFiles, observer: TlsObserver): Promise<() => Promise<void>> {
  return await watchFiles([files.cert, files.key], {
    async changed() {
      server.setSecureContext(await readTls(files))
      observer.reloaded()
    },
    failed: error => observer.failed(error),
  })
}
