import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Database, Queryable } from '../../src/metadata/database.ts'
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts'
import { parseName, parseReference } from '../../src/oci/name.ts'
import type { Registry } from '../../src/registry/registry.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, sha256, withRegistry } from '../support/registry.ts'

const MiB = 2 ** 20
const name = parseName('team/app')

async function pushReferrer(registry: Registry, subject: string, text: string): Promise<string> {
  const body = {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [],
    subject: { mediaType: OCI_MANIFEST, digest: sha256(subject), size: 1 },
    annotations: { text },
  }
  const bytes = Buffer.from(JSON.stringify(body))
  const reference = parseReference(sha256(bytes))
  const push = { name, reference, tags: [], contentType: OCI_INDEX, bytes }
  return (await registry.pushManifest(push, PUSHER)).digest
}

void suite('pages of referrers', () => {
  let index: TestDatabase
  let opened: TestRegistry
  /** Bytes of the largest answer of one statement. */
  let largest = 0

  before(async () => {
    index = await withDatabase()
    const query: Queryable['query'] = async (text, values) => {
      const rows = await index.db.query<never>(text, values)
      largest = Math.max(largest, JSON.stringify(rows).length)
      return rows
    }
    const db: Database = {
      ...index.db,
      driver: index.db.driver,
      query,
      transaction: work => index.db.transaction(work),
    }
    opened = await withRegistry(db)
  })
  after(async () => {
    await opened.close()
    await index.close()
  })

  async function pages(subject: string, limit?: number): Promise<string[][]> {
    const found: string[][] = []
    for (let last: string | undefined = ''; last !== undefined;) {
      const ask = { artifactTypes: [], last, limit }
      const page = await opened.registry.listReferrers(name, sha256(subject), ask, PUSHER)
      assert.ok(Buffer.byteLength(JSON.stringify(page.items)) < 4 * MiB)
      found.push(page.items.map(item => item.digest))
      last = page.next
    }
    return found
  }

  void test('are counted in bytes, not in characters: clients read 4 MiB of an index (distribution-spec, Listing Referrers)', async () => {
    const pushed: string[] = []
    for (const sign of ['あ', 'い', 'う', 'え']) {
      pushed.push(await pushReferrer(opened.registry, 'wide', sign.repeat(MiB / 2)))
    }
    assert.deepEqual(await pages('wide'), [pushed.toSorted().slice(0, 2), pushed.toSorted().slice(2)])
  })

  void test('hold no more in memory than they show, however much refers to a subject', async () => {
    const pushed: string[] = []
    for (let count = 0; count < 10; count++) {
      pushed.push(await pushReferrer(opened.registry, 'much', String(count).repeat(1.5 * MiB)))
    }
    largest = 0
    assert.deepEqual((await pages('much')).flat(), pushed.toSorted())
    assert.ok(largest < 6 * MiB, `one statement answered ${largest} bytes`)
    assert.deepEqual(
      (await pages('much', 1)).map(page => page.length),
      pushed.map(() => 1),
    )
  })
})
