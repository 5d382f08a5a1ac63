import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { after, before, suite, test } from 'node:test'
import { sweep } from '../../src/gc/sweep.ts'
import { type Digest, parseDigest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { OCI_MANIFEST } from '../../src/oci/media-types.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { type Random, runSeed, seeded } from '../support/random.ts'
import { PUSHER, type TestRegistry, letTimePass, withRegistry } from '../support/registry.ts'
import { assertUsageIsTrue, countedButDeleted, setQuota } from '../support/usage.ts'

const REPOSITORIES = ['team/a', 'team/b', 'other/c'].map(parseName)
const BLOBS = Array.from({ length: 10 }, (_, index) => Buffer.alloc(100 + index * 37, index))
const TAGS = ['v1', 'v2', 'v3']
const STEPS = 60
const WORKERS = 4
const OPTIONS = { batch: 7, leaseMs: 3_600_000, trashGraceMs: 3_600_000 }

const digestsOf = (bytes: Uint8Array): Digest[] =>
  (['sha256', 'sha512'] as const).map(algorithm =>
    parseDigest(`${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`),
  )

/** Refusals that a random client meets: what it names is gone, or in use. */
const EXPECTED = new Set(['MANIFEST_UNKNOWN', 'BLOB_UNKNOWN', 'MANIFEST_BLOB_UNKNOWN', 'UNSUPPORTED', 'DENIED'])

void suite('usage by random operations of several clients', () => {
  let database: TestDatabase
  let rules: TestRegistry
  let registries: Registry[]

  before(async () => {
    database = await withDatabase()
    rules = await withRegistry(database.db)
    // What another process has of its own are its connections; everything else lies in the index and the store.
    const other = await withRegistry(await database.another(), { store: rules.store })
    registries = [rules.registry, other.registry]
    await setQuota(database.db, 'team/**', 20_000)
    await setQuota(database.db, 'team/**', 3_000, 'physical')
    await setQuota(database.db, '**', 50_000)
  })
  after(async () => {
    await rules.close()
    await database.close()
  })

  async function pushBlob(registry: Registry, random: Random): Promise<void> {
    const name = random.pick(REPOSITORIES)
    const bytes = random.pick(BLOBS)
    const digest = random.pick(digestsOf(bytes))
    const id = await registry.startUpload(name, PUSHER)
    const { signal } = new AbortController()
    await registry.finishUpload({ name, id }, digest, { stream: Readable.from([bytes]), start: undefined, signal })
  }

  async function pushImage(registry: Registry, random: Random): Promise<void> {
    const layers = Array.from({ length: random.between(1, 3) }, () => random.pick(BLOBS))
    const describe = (bytes: Uint8Array): object => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest: random.pick(digestsOf(bytes)),
      size: bytes.byteLength,
    })
    const image = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: describe(random.pick(BLOBS)),
      layers: layers.map(describe),
    }
    const bytes = Buffer.from(JSON.stringify(image))
    const [digest] = digestsOf(bytes)
    const reference = parseReference(random.next() < 0.7 ? random.pick(TAGS) : (digest ?? ''))
    await registry.pushManifest(
      { name: random.pick(REPOSITORIES), reference, tags: [], contentType: OCI_MANIFEST, bytes },
      PUSHER,
    )
  }

  async function remove(registry: Registry, random: Random): Promise<void> {
    const name = random.pick(REPOSITORIES)
    const rows = await database.db.query<{ digest: Digest }>(
      `select m.digest from manifest m join repository r on r.id = m.repository_id
        where r.name = $1 and m.deleted_at is null order by m.digest`,
      [name],
    )
    const kind = random.next()
    if (kind < 0.3) await registry.deleteManifest(name, parseReference(random.pick(TAGS)), PUSHER)
    else if (kind < 0.5) await registry.deleteBlob(name, random.pick(digestsOf(random.pick(BLOBS))), PUSHER)
    else if (rows.length > 0) await registry.deleteManifest(name, { digest: random.pick(rows).digest }, PUSHER)
  }

  async function mount(registry: Registry, random: Random): Promise<void> {
    const digest = random.pick(digestsOf(random.pick(BLOBS)))
    await registry.mountBlob(
      { name: random.pick(REPOSITORIES), digest, from: random.pick(REPOSITORIES), visible: [] },
      PUSHER,
    )
  }

  async function work(registry: Registry, random: Random, collecting: boolean): Promise<void> {
    for (let step = 0; step < STEPS; step++) {
      const kind = random.next()
      try {
        if (collecting && kind < 0.05) {
          await letTimePass(database.db)
          await sweep(database.db, OPTIONS, async () => undefined)
        } else if (kind < 0.4) await pushBlob(registry, random)
        else if (kind < 0.65) await pushImage(registry, random)
        else if (kind < 0.85) await remove(registry, random)
        else await mount(registry, random)
      } catch (error) {
        if (!(error instanceof RegistryError) || !EXPECTED.has(error.code)) throw error
      }
    }
  }

  async function workTogether(seed: number, collecting: boolean): Promise<void> {
    await Promise.all(
      Array.from({ length: WORKERS }, (_, index) => {
        const registry = registries[index % registries.length] ?? rules.registry
        return work(registry, seeded(seed + index), collecting)
      }),
    )
  }

  void test('counters, quotas and stores say what the rows say after any pushes, mounts and deletions (spec: Pushing Manifests, Content Management)', async () => {
    const seed = runSeed()
    console.log(`usage: seed ${seed} (BERTH_TEST_SEED)`)
    await workTogether(seed, false)
    await assertUsageIsTrue(database.db)
    assert.deepEqual(await countedButDeleted(database.db), [], 'what was deleted is given back at once')
  })

  void test('and while they are collected at the same time', async () => {
    const seed = runSeed()
    console.log(`usage with collection: seed ${seed} (BERTH_TEST_SEED)`)
    await workTogether(seed, true)
    await assertUsageIsTrue(database.db)
  })
})
