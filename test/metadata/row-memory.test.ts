import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { parseName, parseTag } from '../../src/oci/name.ts'
import { LookUp } from '../../src/metadata/look-up.ts'
import { RowMemory } from '../../src/metadata/row-memory.ts'
import { type TestDatabase, testDriver, withDatabase } from '../support/database.ts'
import { PUSHER, type TestRegistry, pushImage, withRegistry } from '../support/registry.ts'

void describe('rows are remembered as long as nothing is written', () => {
  let changes: number | undefined = 0
  /** A look-up of a table of one cell, and how often it was asked. */
  function cell(maxAgeMs = 3_600_000) {
    const table = { value: 'first', reads: 0, held: Promise.resolve() }
    const memory = new RowMemory<string>({ changes: () => changes, maxAgeMs })
    const lookUp = new LookUp<string, string>(
      async keys => {
        table.reads += 1
        const { value } = table
        await table.held
        return keys.map(key => (key === 'absent' ? undefined : value))
      },
      key => key,
      {},
      memory,
    )
    return { table, lookUp }
  }

  void it('the second question is answered from memory, what is absent is asked for again', async () => {
    changes = 0
    const { table, lookUp } = cell()
    for (const _ of [1, 2]) assert.equal(await lookUp.find('a'), 'first')
    assert.equal(table.reads, 1)
    for (const _ of [1, 2]) assert.equal(await lookUp.find('absent'), undefined)
    assert.equal(table.reads, 3)
  })

  void it('after a commit nothing that was read before it is answered', async () => {
    changes = 0
    const { table, lookUp } = cell()
    await lookUp.find('a')
    table.value = 'second'
    changes = 1
    assert.equal(await lookUp.find('a'), 'second')
  })

  void it('what was read before a commit and came after it is not kept', async () => {
    changes = 0
    const { table, lookUp } = cell()
    const held = Promise.withResolvers<void>()
    table.held = held.promise
    const early = lookUp.find('a')
    table.value = 'second'
    changes = 1
    held.resolve()
    assert.equal(await early, 'first')
    assert.equal(await lookUp.find('a'), 'second')
  })

  void it('nothing is answered that is older than the promise allows', async () => {
    changes = 0
    const { table, lookUp } = cell(0)
    await lookUp.find('a')
    await lookUp.find('a')
    assert.equal(table.reads, 2)
  })

  void it('where others write too nothing is remembered', async () => {
    changes = undefined
    const { table, lookUp } = cell()
    await lookUp.find('a')
    await lookUp.find('a')
    assert.equal(table.reads, 2)
  })
})

void describe('what a registry answers from memory', () => {
  const name = parseName('team/app')
  let index: TestDatabase
  let test: TestRegistry
  let reads = 0

  before(async () => {
    index = await withDatabase()
    const { db } = index
    test = await withRegistry({
      driver: db.driver,
      query: (text, values) => {
        if (text.includes('join lateral')) reads += 1
        return db.query(text, values)
      },
      transaction: work => db.transaction(work),
      changes: () => db.changes(),
      load: () => db.load(),
      close: () => db.close(),
    })
  })
  after(async () => {
    await test.close()
    await index.close()
  })

  const digestOf = async (tag: string): Promise<string> =>
    (await test.registry.statManifest(name, { tag: parseTag(tag) }, PUSHER)).digest

  void it('is where a tag points now, after every push (distribution-spec, Pulling manifests)', async () => {
    for (let round = 0; round < 3; round++) {
      const digest = await pushImage(test.registry, 'team/app', 'latest')
      assert.equal(await digestOf('latest'), digest)
      assert.equal(await digestOf('latest'), digest)
    }
  })

  void it('asks the embedded index once for many pulls, and Postgres each time: other processes write there', async () => {
    await pushImage(test.registry, 'team/app', 'often')
    reads = 0
    for (let count = 0; count < 10; count++) await digestOf('often')
    assert.equal(reads, testDriver === 'embedded' ? 1 : 10)
  })

  void it('is absent at once when it is deleted', async () => {
    await pushImage(test.registry, 'team/app', 'gone')
    await digestOf('gone')
    await test.registry.deleteManifest(name, { tag: parseTag('gone') }, PUSHER)
    await assert.rejects(digestOf('gone'), /manifest unknown/i)
  })
})
