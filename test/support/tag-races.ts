import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AccessServer, PASSWORD, basic } from './access.ts'
import { until } from './clients.ts'
import { type TagAnswer, askManifest, pushText, textIndex } from './tag-client.ts'

const PARALLEL = 20
const admin = basic('admin', PASSWORD)

/**
 * Declares the races for tags that rules keep. `next` gives the registry to ask next: the same one always, or one
 * process and another in turn.
 */
export function describeTagRaces(next: () => AccessServer): void {
  const push = async (name: string, tag: string, text: string): Promise<TagAnswer> =>
    await pushText(next().url, admin, { name, tag, text })
  const pull = async (name: string, reference: string): Promise<TagAnswer> =>
    await askManifest(next().url, admin, { method: 'HEAD', name, reference })
  const count = (answers: readonly TagAnswer[], status: number): number =>
    answers.filter(answer => answer.status === status).length

  void test(`${PARALLEL} pushes of an immutable tag with different digests: one is 201 and stays, the others are 403 DENIED`, async () => {
    await next().administer('POST', '/tag-rules', { pattern: 'race/first', tags: 'v*', immutable: true })
    const texts = Array.from({ length: PARALLEL }, (_, index) => `image ${index}`)
    const answers = await Promise.all(texts.map(text => push('race/first', 'v1', text)))
    assert.deepEqual([count(answers, 201), count(answers, 403)], [1, PARALLEL - 1])
    assert.ok(answers.every(({ status, code }) => status === 201 || code === 'DENIED'))
    const winner = texts[answers.findIndex(({ status }) => status === 201)] ?? ''
    assert.equal((await pull('race/first', 'v1')).digest, textIndex(winner).digest)
  })

  void test(`${PARALLEL} pushes of an immutable tag with one digest: all are 201`, async () => {
    await next().administer('POST', '/tag-rules', { pattern: 'race/same', tags: 'v*', immutable: true })
    const answers = await Promise.all(Array.from({ length: PARALLEL }, () => push('race/same', 'v1', 'the same')))
    assert.equal(count(answers, 201), PARALLEL)
  })

  void test('from the answer to a new rule on no push moves the tag, also none that began before', async () => {
    let pushes = 0
    let isOver = false
    const pusher = async (): Promise<void> => {
      while (!isOver) {
        const { status } = await push('race/added', 'v1', `image ${pushes}`)
        assert.ok(status === 201 || status === 403, String(status))
        if (status === 201) pushes += 1
      }
    }
    const pushers = Array.from({ length: 6 }, pusher)
    await until('pushes run', async () => pushes > 5)
    await next().administer('POST', '/tag-rules', { pattern: 'race/added', tags: 'v*', immutable: true })
    const kept = (await pull('race/added', 'v1')).digest
    isOver = true
    await Promise.all(pushers)
    assert.notEqual(kept, undefined)
    assert.equal((await pull('race/added', 'v1')).digest, kept)
    assert.equal((await push('race/added', 'v1', 'another image')).status, 403)
  })

  void test('an immutable tag and its deletion, its push and the deletion of its repository: it stays, or never was', async () => {
    await next().administer('POST', '/tag-rules', { pattern: 'race/gone*', tags: 'v*', immutable: true })
    for (let round = 0; round < 5; round += 1) {
      const name = `race/gone${round}`
      const { digest } = textIndex('image')
      const remove = async (): Promise<boolean> =>
        await next()
          .administer('DELETE', `/repositories/${name}`)
          .then(
            () => true,
            (error: unknown) => {
              assert.match(String(error), /: (?:403|404) /)
              return false
            },
          )
      const [pushed, byTag, byDigest] = await Promise.all([
        push(name, 'v1', 'image'),
        askManifest(next().url, admin, { method: 'DELETE', name, reference: 'v1' }),
        askManifest(next().url, admin, { method: 'DELETE', name, reference: digest }),
        remove(),
      ])
      assert.equal(pushed.status, 201)
      assert.ok([byTag, byDigest].every(({ status }) => status === 403 || status === 404))
      assert.equal((await pull(name, 'v1')).digest, digest)
      assert.equal(await remove(), false)
    }
  })

  void test('a repository that is deleted and brought back while pushes go on: what was acknowledged is in one of its name', async () => {
    const outcome = async (work: Promise<unknown>): Promise<boolean> =>
      await work.then(
        () => true,
        (error: unknown) => {
          assert.match(String(error), /: (?:404|409) /)
          return false
        },
      )
    const repository = 'race/whole'
    for (let round = 0; round < 8; round += 1) {
      const answers = await Promise.all([
        push(repository, `a${round}`, 'image'),
        outcome(next().administer('DELETE', `/repositories/${repository}`)),
        push(repository, `b${round}`, 'image'),
        outcome(next().administer('POST', '/repository-undeletions', { repository })),
        push(repository, `c${round}`, 'image'),
      ])
      assert.ok(answers.every(answer => typeof answer === 'boolean' || answer.status === 201))
    }
    const { items } = await next().administer('GET', '/deleted-repositories?limit=1000')
    const deleted = (items as { id: number; name: string }[]).filter(({ name }) => name === repository)
    const found = new Set<string>()
    const look = async (): Promise<void> => {
      for (let round = 0; round < 8; round += 1) {
        for (const tag of [`a${round}`, `b${round}`, `c${round}`]) {
          if ((await pull(repository, tag)).status === 200) found.add(tag)
        }
      }
    }
    await look()
    for (const { id } of deleted) {
      await outcome(next().administer('DELETE', `/repositories/${repository}`))
      await next().administer('POST', '/repository-undeletions', { repository, id })
      await look()
    }
    assert.equal(found.size, 24)
  })
}
