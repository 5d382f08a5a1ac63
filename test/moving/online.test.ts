import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'node:test'
import { purgeTrash } from '../../src/gc/purge.ts'
import { sweep } from '../../src/gc/sweep.ts'
import type { Digest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import { BlobMissing } from '../../src/storage/blob-store.ts'
import { Stores } from '../../src/storage/stores.ts'
import { withDatabase } from '../support/database.ts'
import { askForMove, moveOf, strays, workOnMove } from '../support/moving.ts'
import { type Random, runSeed, seeded } from '../support/random.ts'
import { received } from '../support/received.ts'
import { PUSHER, letTimePass, pushBlob, pushImage, sha256, withRegistry } from '../support/registry.ts'
import { openTwoStores } from '../support/two-stores.ts'

const MOVED_BLOBS = 150
const LIMIT_MS = 120_000
const LEASE_MS = 2_000
const GRACE_MS = 500
const TAGS = 8
const LAYERS = 20
const name = parseName('team/app')
const { signal } = new AbortController()

/** Layer number `index`: the same bytes whoever pushes it. */
function layer(index: number): Buffer<ArrayBuffer> {
  return Buffer.from(createHash('sha512').update(`layer ${index}`).digest())
}

const isCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof RegistryError && codes.includes(error.code)

void test('content moves there and back while images are pushed, pulled, deleted and collected, and none breaks', async t => {
  const seed = runSeed()
  t.diagnostic(`seed ${seed}: repeat with BERTH_TEST_SEED=${seed}`)
  const index = await withDatabase()
  const { db } = index
  const two = await openTwoStores()
  const stores = [
    new Stores({ store: two.old }, { store: two.next }),
    new Stores({ store: two.next }, { store: two.old }),
  ] as const
  const lifetimes = {
    leaseMs: LEASE_MS,
    untaggedRetentionMs: LEASE_MS,
    uploadExpiryMs: LIMIT_MS,
    deleteGraceMs: GRACE_MS,
    trashGraceMs: GRACE_MS,
  }
  // Two processes with another default each, as they are while the setting is being changed.
  const rules = await Promise.all(stores.map(some => withRegistry(db, { stores: some, lifetimes })))
  const counts = { pushes: 0, late: 0, pulls: 0, deletes: 0, collected: 0, moves: 0, moved: 0 }
  const stop = new AbortController()
  const registryFor = (random: Random) => random.pick(rules).registry

  async function push(random: Random): Promise<void> {
    const registry = registryFor(random)
    const began = performance.now()
    try {
      const layers: Digest[] = []
      for (let count = random.between(1, 3); count > 0; count--) {
        layers.push(await pushBlob(registry, 'team/app', layer(random.between(0, LAYERS - 1))))
      }
      await pushImage(registry, 'team/app', `t${random.between(0, TAGS - 1)}`, { layers })
      counts.pushes += 1
    } catch (error) {
      // Whoever takes longer than it was promised is refused, and has to push again.
      if (!isCode(error, 'MANIFEST_BLOB_UNKNOWN') || performance.now() - began < LEASE_MS / 2) throw error
      counts.late += 1
    }
  }

  /** Reads a blob, from where it moved to if it moved between the look and the reading. */
  async function pullBlob(random: Random, digest: Digest): Promise<void> {
    for (;;) {
      const registry = registryFor(random)
      const blob = await registry.statBlob(name, digest, { mayPush: false })
      try {
        const bytes = await received(to => registry.sendBlob(blob, undefined, to, signal))
        assert.equal(sha256(bytes), digest)
        return
      } catch (error) {
        if (!(error instanceof BlobMissing)) throw error
        const again = await registry.statBlob(name, digest, { mayPush: false })
        assert.notEqual(again.key, blob.key, `${digest} lies nowhere`)
      }
    }
  }

  async function pull(random: Random, tag: string): Promise<void> {
    const registry = registryFor(random)
    const reference = parseReference(tag)
    const isTagged = async (digest: Digest): Promise<boolean> =>
      await registry.statManifest(name, reference, { mayPush: false }).then(
        found => found.digest === digest,
        () => false,
      )
    const manifest = await registry.statManifest(name, reference, { mayPush: false }).catch((error: unknown) => {
      if (isCode(error, 'MANIFEST_UNKNOWN', 'NAME_UNKNOWN')) return undefined
      throw error
    })
    if (manifest === undefined) return
    const body = JSON.parse(Buffer.from(await registry.readManifest(manifest)).toString()) as {
      config: { digest: Digest }
      layers: { digest: Digest }[]
    }
    for (const { digest } of [body.config, ...body.layers]) {
      try {
        await pullBlob(random, digest)
      } catch (error) {
        // An image that lost its tag meanwhile may be collected.
        if (isCode(error, 'BLOB_UNKNOWN') && !(await isTagged(manifest.digest))) return
        throw error
      }
    }
    counts.pulls += 1
  }

  async function remove(random: Random): Promise<void> {
    try {
      await registryFor(random).deleteManifest(name, parseReference(`t${random.between(0, TAGS - 1)}`), PUSHER)
      counts.deletes += 1
    } catch (error) {
      if (!isCode(error, 'MANIFEST_UNKNOWN', 'NAME_UNKNOWN')) throw error
    }
  }

  async function collect(): Promise<void> {
    const { blobs } = await sweep(db, { batch: 20, leaseMs: LEASE_MS, trashGraceMs: GRACE_MS }, async () => undefined)
    counts.collected += blobs
    for (const store of stores[0].all) await purgeTrash(db, store)
  }

  async function move(): Promise<void> {
    const target = counts.moves % 2 === 0 ? 'next' : 'old'
    await askForMove(db, target)
    const graces = { graceMs: GRACE_MS, draftMs: LIMIT_MS }
    // One does it and the other has nothing to do.
    await Promise.all(stores.map(some => workOnMove({ db, stores: some, ...graces })))
    const { copied_blobs: copied, failed_blobs: failed, last_failure: failure } = await moveOf(db)
    assert.equal(failed, 0, failure ?? '')
    counts.moves += 1
    counts.moved += copied
  }

  const act = async (work: () => Promise<void>): Promise<void> => {
    try {
      while (!stop.signal.aborted) {
        await work()
        await turn()
      }
    } finally {
      stop.abort()
    }
  }
  const started = performance.now()
  const actor = (id: number): Random => seeded(seed + id)
  const randoms = Array.from({ length: 7 }, (_, id) => actor(id)) as [Random, Random, Random, Random, ...Random[]]
  const anyTag = (random: Random): string => `t${random.between(0, TAGS - 1)}`
  try {
    await Promise.all([
      ...randoms.slice(0, 3).map(random => act(() => push(random))),
      ...randoms.slice(3, 5).map(random => act(() => pull(random, anyTag(random)))),
      act(() => remove(randoms[5] ?? randoms[0])),
      act(collect),
      act(async () => {
        await move()
        const isEnough = counts.moved >= MOVED_BLOBS && counts.moves >= 4 && counts.collected > 0
        if (isEnough || performance.now() - started > LIMIT_MS) stop.abort()
      }),
    ])
    t.diagnostic(JSON.stringify(counts))
    assert.ok(counts.moves >= 4 && counts.moved > 0 && counts.collected > 0, JSON.stringify(counts))
    await letTimePass(db)
    await collect()
    for (let tag = 0; tag < TAGS; tag++) await pull(randoms[0], `t${tag}`)
    for (const store of stores[0].all) assert.equal((await strays(db, store)).unnamed, 0)
  } finally {
    for (const each of rules) await each.close()
    await two.close()
    await index.close()
  }
})
