import type { Registry } from '../registry/registry.ts'
import type { BlobStore } from '../storage/blob-store.ts'
import type { Metrics } from './metrics.ts'

/** The store with the bytes it receives counted. */
export function meteredStore(store: BlobStore, metrics: Metrics): BlobStore {
  return {
    name: store.name,
    begin: hint => store.begin(hint),
    append: (state, body, options) =>
      store.append(state, body, {
        ...options,
        observe(bytes) {
          metrics.blobReceived(bytes.byteLength)
          options.observe(bytes)
        },
      }),
    fence: state => store.fence(state),
    finish: state => store.finish(state),
    abort: state => store.abort(state),
    send: (...args) => store.send(...args),
    read: (...args) => store.read(...args),
    stat: key => store.stat(key),
    delete: keys => store.delete(keys),
    list: () => store.list(),
    readMarker: () => store.readMarker(),
    writeMarker: text => store.writeMarker(text),
    check: () => store.check(),
    close: () => store.close(),
  }
}

/** The use cases with their uploads counted and timed. */
export function meteredRegistry(registry: Registry, metrics: Metrics): Registry {
  const transfer = async <T>(work: () => Promise<T>): Promise<T> => {
    const ended = metrics.transferBegan()
    try {
      return await work()
    } catch (error) {
      metrics.observeUpload('failed')
      throw error
    } finally {
      ended()
    }
  }
  return {
    ...registry,
    async startUpload(...args) {
      const id = await registry.startUpload(...args)
      metrics.observeUpload('started')
      return id
    },
    appendUpload: (...args) => transfer(() => registry.appendUpload(...args)),
    async finishUpload(...args) {
      await transfer(() => registry.finishUpload(...args))
      metrics.observeUpload('finished')
    },
    async cancelUpload(target) {
      await registry.cancelUpload(target)
      metrics.observeUpload('cancelled')
    },
  }
}
