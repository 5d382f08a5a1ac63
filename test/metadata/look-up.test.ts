import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { type Digest, digestOf } from '../../src/oci/digest.ts'
import type { RepositoryName, Tag } from '../../src/oci/name.ts'
import { type Database, DatabaseUnavailable } from '../../src/metadata/database.ts'
import { LookUp } from '../../src/metadata/look-up.ts'
import { type ManifestKey, findManifests, upsertManifest } from '../../src/metadata/manifests.ts'
import { holdRepository } from '../../src/metadata/repositories.ts'
import { pointTag } from '../../src/metadata/tags.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'

/** A statement that answers when it is told to; the row of a key is the key in upper case, of `absent` none. */
function statements(limits: ConstructorParameters<typeof LookUp>[2] = {}) {
  const sent: { readonly keys: readonly string[]; answer(): void; fail(error: Error): void }[] = []
  const lookUp = new LookUp<string, string>(
    async keys => {
      const answer = Promise.withResolvers<void>()
      sent.push({ keys, answer: answer.resolve, fail: answer.reject })
      await answer.promise
      return keys.map(key => (key === 'absent' ? undefined : key.toUpperCase()))
    },
    key => key,
    limits,
  )
  return { lookUp, sent, keys: () => sent.map(({ keys }) => keys.join()) }
}

/** Lets everything run that is ready to. */
async function settle(): Promise<void> {
  await new Promise(setImmediate)
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await settle()
}

void describe('look-ups share statements', () => {
  void it('those that arrive while one is under way go together in the next, each answered for itself', async () => {
    const { lookUp, sent, keys } = statements({ stallMs: 60_000 })
    const answers = ['a', 'b', 'absent', 'c'].map(key => lookUp.find(key))
    assert.deepEqual(keys(), ['a'])
    sent[0]?.answer()
    await until(() => sent.length === 2)
    assert.deepEqual(keys(), ['a', 'b,absent,c'])
    sent[1]?.answer()
    assert.deepEqual(await Promise.all(answers), ['A', 'B', undefined, 'C'])
  })

  void it('a question is never answered by a statement that was sent before it', async () => {
    const { lookUp, sent, keys } = statements({ stallMs: 60_000 })
    const early = lookUp.find('a')
    const late = lookUp.find('a')
    sent[0]?.answer()
    await early
    await until(() => sent.length === 2)
    assert.deepEqual(keys(), ['a', 'a'])
    sent[1]?.answer()
    assert.equal(await late, 'A')
  })

  void it('equal questions that wait share one place', async () => {
    const { lookUp, sent, keys } = statements({ stallMs: 60_000 })
    const answers = ['a', 'b', 'b', 'b'].map(key => lookUp.find(key))
    sent[0]?.answer()
    await until(() => sent.length === 2)
    assert.deepEqual(keys(), ['a', 'b'])
    sent[1]?.answer()
    assert.deepEqual(await Promise.all(answers), ['A', 'B', 'B', 'B'])
  })

  void it('a statement has no more keys than its bound', async () => {
    const { lookUp, sent, keys } = statements({ stallMs: 60_000, batchKeys: 2 })
    const answers = ['a', 'b', 'c', 'd', 'e'].map(key => lookUp.find(key))
    for (let count = 1; count <= 3; count++) {
      await until(() => sent.length === count)
      sent[count - 1]?.answer()
    }
    assert.deepEqual(keys(), ['a', 'b,c', 'd,e'])
    assert.deepEqual(await Promise.all(answers), ['A', 'B', 'C', 'D', 'E'])
  })
})

void describe('a look-up that meets a fault', () => {
  void it('goes beside a statement that stalls, and no further when both stall', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { lookUp, sent, keys } = statements({ stallMs: 50, timeoutMs: 60_000 })
    const answers = ['a', 'b'].map(key => lookUp.find(key))
    assert.deepEqual(keys(), ['a'])
    t.mock.timers.tick(50)
    assert.deepEqual(keys(), ['a', 'b'])
    answers.push(lookUp.find('c'))
    sent[1]?.answer()
    assert.equal(await answers[1], 'B')
    await until(() => sent.length === 3)
    answers.push(lookUp.find('d'))
    t.mock.timers.tick(1_000)
    assert.deepEqual(keys(), ['a', 'b', 'c'])
    sent[2]?.answer()
    await until(() => sent.length === 4)
    for (const statement of sent) statement.answer()
    assert.deepEqual(await Promise.all(answers), ['A', 'B', 'C', 'D'])
  })

  void it('is alone with it: the other keys of a statement that fails are asked one by one', async () => {
    const failed: string[][] = []
    const gate = Promise.withResolvers<void>()
    const lookUp = new LookUp<string, string>(
      async keys => {
        await gate.promise
        if (keys.includes('poison')) {
          failed.push([...keys])
          throw new RangeError('no such value')
        }
        return keys
      },
      key => key,
    )
    const answers = Promise.allSettled(['first', 'b', 'poison', 'c'].map(key => lookUp.find(key)))
    gate.resolve()
    const [first, b, poison, c] = await answers
    assert.deepEqual(first, { status: 'fulfilled', value: 'first' })
    assert.deepEqual(b, { status: 'fulfilled', value: 'b' })
    assert.deepEqual(c, { status: 'fulfilled', value: 'c' })
    assert.ok(poison?.status === 'rejected' && poison.reason instanceof RangeError)
    assert.deepEqual(failed, [['b', 'poison', 'c'], ['poison']])
  })

  void it('is told at once that the index is not there, and asked no second time', async () => {
    const { lookUp, sent } = statements({ stallMs: 60_000 })
    const answers = Promise.allSettled(['a', 'b', 'c'].map(key => lookUp.find(key)))
    sent[0]?.answer()
    await until(() => sent.length === 2)
    sent[1]?.fail(new DatabaseUnavailable('gone'))
    const [, ...others] = await answers
    assert.deepEqual(
      others.map(other => other.status === 'rejected' && other.reason instanceof DatabaseUnavailable),
      [true, true],
    )
    assert.equal(sent.length, 2)
    const again = lookUp.find('d')
    sent[2]?.answer()
    assert.equal(await again, 'D')
  })

  void it('is given up in time, waiting or under way, and what waited is not asked later', async t => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    const { lookUp, sent, keys } = statements({ stallMs: 60_000, timeoutMs: 5_000 })
    const answers = Promise.allSettled(['a', 'b'].map(key => lookUp.find(key)))
    t.mock.timers.tick(5_000)
    for (const late of await answers) {
      assert.ok(late.status === 'rejected' && late.reason instanceof DatabaseUnavailable)
    }
    sent[0]?.answer()
    await settle()
    assert.deepEqual(keys(), ['a'])
    const fresh = lookUp.find('c')
    sent[1]?.answer()
    assert.equal(await fresh, 'C')
  })

  void it('is refused when too many wait, and served again when they do not', async () => {
    const { lookUp, sent } = statements({ stallMs: 60_000, pendingKeys: 2 })
    const answers = ['a', 'b'].map(key => lookUp.find(key))
    await assert.rejects(lookUp.find('c'), DatabaseUnavailable)
    sent[0]?.answer()
    await answers[0]
    await until(() => sent.length === 2)
    answers.push(lookUp.find('d'))
    sent[1]?.answer()
    await until(() => sent.length === 3)
    sent[2]?.answer()
    assert.deepEqual(await Promise.all(answers), ['A', 'B', 'D'])
  })
})

void describe('look-ups of manifests', () => {
  let test: TestDatabase
  before(async () => {
    test = await withDatabase()
  })
  after(() => test.close())

  const NAME = 'look/up' as RepositoryName
  const TAG = 'moving' as Tag

  function lookUpOn(db: Database) {
    return new LookUp(
      (keys: readonly ManifestKey[]) => findManifests(db, keys, 1000),
      ({ repository, reference }) => `${repository} ${reference.tag ?? reference.digest}`,
    )
  }

  async function push(round: number): Promise<Digest> {
    const digest = digestOf('sha256', round.toString(16).padStart(64, '0'))
    await test.db.transaction(async tx => {
      const { id } = await holdRepository(tx, NAME)
      const { id: manifestId } = await upsertManifest(tx, {
        repositoryId: id,
        digest,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        artifactType: undefined,
        subject: undefined,
        annotations: undefined,
        payload: Buffer.from('{}'),
        leaseMs: 86_400_000,
        principal: undefined,
        provenance: undefined,
      })
      await pointTag(tx, { repositoryId: id, name: TAG, manifestId, digest, principal: undefined, action: 'push' })
    })
    return digest
  }

  // https://github.com/distribution/distribution/issues/2625: who hears of a push pulls at once, and must get it.
  void it('that begin after a push was acknowledged see it, in this process and in another, under load', async () => {
    const pools = [test.db, await test.another()]
    const lookUps = pools.map(lookUpOn)
    let isOver = false
    const load = lookUps.map(async lookUp => {
      while (!isOver) {
        await Promise.all(
          [TAG, 'other', 'third'].map(tag => lookUp.find({ repository: NAME, reference: { tag: tag as Tag } })),
        )
      }
    })
    for (let round = 1; round <= 100; round++) {
      const digest = await push(round)
      const seen = await Promise.all(lookUps.map(lookUp => lookUp.find({ repository: NAME, reference: { tag: TAG } })))
      assert.deepEqual(
        seen.map(row => row?.digest),
        [digest, digest],
      )
    }
    isOver = true
    await Promise.all(load)
  })

  void it('answer tags and digests of several repositories in their order, and nothing for what is not there', async () => {
    const digest = await push(0xabc)
    const keys: ManifestKey[] = [
      { repository: 'no/such' as RepositoryName, reference: { tag: TAG } },
      { repository: NAME, reference: { digest } },
      { repository: NAME, reference: { tag: 'absent' as Tag } },
      { repository: NAME, reference: { tag: TAG } },
      { repository: NAME, reference: { digest: digestOf('sha256', 'f'.repeat(64)) } },
    ]
    const rows = await findManifests(test.db, keys, 1000)
    assert.deepEqual(
      rows.map(row => row?.digest),
      [undefined, digest, undefined, digest, undefined],
    )
    assert.deepEqual(await findManifests(test.db, [], 1000), [])
  })
})
