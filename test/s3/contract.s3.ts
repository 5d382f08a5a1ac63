import { describeBlobStore } from '../storage/contract.ts'
import type { StorageKey } from '../../src/storage/blob-store.ts'
import { createBucket, testServers } from './support.ts'

for (const server of testServers()) {
  describeBlobStore(`S3 (${server.name})`, async () => {
    const bucket = await createBucket(server)
    const store = bucket.open()
    const blobs = new Set<StorageKey>()
    const finish = store.finish.bind(store)
    store.finish = async state => {
      const key = await finish(state)
      blobs.add(key)
      return key
    }
    return {
      store,
      leftovers: async () => {
        const names = (await bucket.contents()).filter(name => name !== 'registry/marker')
        const strays = names.filter(name => !blobs.has(name.slice(-32) as StorageKey) || name.startsWith('upload:'))
        return store.memory.held === 0 ? strays : [...strays, `${store.memory.held} bytes of memory`]
      },
      cleanup: () => bucket.remove(),
    }
  })
}
