import { PGlite } from '@electric-sql/pglite'
import { NodeFS } from '@electric-sql/pglite/nodefs'
import { closeSync, fdatasyncSync, fsyncSync, openSync } from 'node:fs'

/** The parts of the WebAssembly module's file system that a sync needs. */
interface SyncableModule {
  readonly NODEFS: {
    stream_ops: { fsync?: (stream: { readonly nfd?: number; readonly node: unknown }) => number }
    realPath(node: unknown): string
  }
}

/** The data directory's files. Unlike the bundled file system it passes fsync on to the operating system. */
class DurableFiles extends NodeFS {
  override async init(...[db, options]: Parameters<NodeFS['init']>): ReturnType<NodeFS['init']> {
    const install = (module: unknown): void => {
      const { NODEFS } = module as SyncableModule
      NODEFS.stream_ops.fsync = stream => {
        if (stream.nfd === undefined) syncDirectory(NODEFS.realPath(stream.node))
        else fdatasyncSync(stream.nfd)
        return 0
      }
    }
    return await super.init(db, { ...options, preRun: [...(options.preRun ?? []), install] })
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

const INT8 = 20
const TIMESTAMPTZ = 1184
const INT8_ARRAY = 1016

/** The engine's own parameters, among them the one that turns fsync off. */
const { defaultStartParams } = PGlite as unknown as { defaultStartParams: readonly string[] }

// Its fdatasync is a stub; its fsync reaches the file system above. No other process takes checkpoints here.
const SETTINGS = ['shared_buffers=16MB', 'fsync=on', 'wal_sync_method=fsync', 'min_wal_size=32MB']

/** Opens (or with nothing there, initialises) the engine on a directory. */
export async function openEngine(directory: string): Promise<PGlite> {
  return await PGlite.create({
    fs: new DurableFiles(directory),
    startParams: [
      ...defaultStartParams.filter(param => param !== '-F'),
      ...SETTINGS.flatMap(setting => ['-c', setting]),
    ],
    parsers: {
      [INT8]: Number,
      [INT8_ARRAY]: text => (text === '{}' ? [] : text.slice(1, -1).split(',').map(Number)),
      [TIMESTAMPTZ]: text => (text === 'infinity' ? Infinity : text === '-infinity' ? -Infinity : new Date(text)),
    },
  })
}
