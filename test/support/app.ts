import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type Server, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type AccessRoutes, createApp } from '../../src/app.ts'
import { MAX_HEAD_BYTES } from '../../src/http-server.ts'
import type { Database } from '../../src/metadata/database.ts'
import type { RequestRecord } from '../../src/middleware/request-log.ts'
import type { Lifetimes } from '../../src/registry/context.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import type { BlobStore } from '../../src/storage/blob-store.ts'
import type { OpenFile } from '../../src/storage/file-support.ts'
import { openFilesystemStore } from '../../src/storage/filesystem.ts'
import { Stores } from '../../src/storage/stores.ts'
import { type TestDatabase, withDatabase } from './database.ts'

/** A registry inside the test's own process, so that its parts can be watched and made to fail. */
export interface TestApp<S extends BlobStore> {
  /** `http://127.0.0.1:PORT` */
  readonly url: string
  readonly port: number
  readonly db: Database
  readonly store: S
  /** Where the filesystem store keeps its bytes. */
  readonly directory: string
  readonly server: Server
  /** Every finished request. */
  readonly requests: readonly RequestRecord[]
  /** Errors that belonged to no request's answer. */
  readonly strayErrors: readonly unknown[]
  close(): Promise<void>
}

export interface TestAppOptions<S extends BlobStore> {
  /** Put around the filesystem store. */
  readonly wrapStore: (store: BlobStore) => S
  /** How the filesystem store opens files. */
  readonly open?: OpenFile
  /** Put around the index. */
  readonly wrapDatabase?: (db: Database) => Database
  readonly lifetimes?: Partial<Lifetimes>
  /** Logins on this index; without them everyone may do everything. */
  readonly access?: (db: Database) => Promise<AccessRoutes>
  readonly idleTimeoutMs?: number
}

const HOUR_MS = 3_600_000
const LIFETIMES: Lifetimes = {
  leaseMs: 24 * HOUR_MS,
  untaggedRetentionMs: 168 * HOUR_MS,
  deleteGraceMs: 168 * HOUR_MS,
  uploadExpiryMs: 24 * HOUR_MS,
  trashGraceMs: HOUR_MS,
}

/** Starts a registry on a fresh index and a fresh directory. */
export async function startApp<S extends BlobStore>(options: TestAppOptions<S>): Promise<TestApp<S>> {
  const database: TestDatabase = await withDatabase()
  const directory = await mkdtemp(join(tmpdir(), 'berth-app-'))
  const store = options.wrapStore(
    await openFilesystemStore({ directory, ...(options.open === undefined ? {} : { open: options.open }) }),
  )
  const db = options.wrapDatabase?.(database.db) ?? database.db
  const access = await options.access?.(db)
  const requests: RequestRecord[] = []
  const strayErrors: unknown[] = []
  const app = createApp({
    registry: createRegistry({
      db,
      stores: new Stores({ store }),
      lifetimes: { ...LIFETIMES, ...options.lifetimes },
      requireBlobs: true,
      requireChildren: false,
      allowChildDelete: false,
    }),
    ...(access === undefined ? {} : { access }),
    manifestMaxBytes: 2 ** 23,
    tagListMax: 1_000,
    observe: record => requests.push(record),
    onError: error => strayErrors.push(error),
    ready: async () => ({ isReady: true, notes: [] }),
  })
  const handle = app.callback()
  const server = createServer({ maxHeaderSize: MAX_HEAD_BYTES }, (req, res) => {
    void handle(req, res)
  })
  server.requestTimeout = 0
  if (options.idleTimeoutMs !== undefined) server.setTimeout(options.idleTimeoutMs)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    db,
    store,
    directory,
    server,
    requests,
    strayErrors,
    async close() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
      await store.close()
      await database.close()
      await rm(directory, { recursive: true, force: true })
    },
  }
}
