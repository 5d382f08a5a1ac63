import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import {
  assertBytes,
  type Bytes,
  close,
  manifestOf,
  offsetOf,
  openUpload,
  patch,
  pushBlob,
  putManifest,
  sha256,
  sha512,
} from './push.ts'

const PARALLEL = 50
const ROUNDS = 25
const CONFIG = Buffer.from('{}')

/** Sorted statuses, for comparing outcomes whose order is chance. */
async function statuses(requests: readonly Promise<Response>[]): Promise<number[]> {
  const answers = await Promise.all(requests)
  await Promise.all(answers.map(answer => answer.arrayBuffer()))
  return answers.map(answer => answer.status).toSorted((a, b) => a - b)
}

function isOneOf(outcome: readonly number[], ...allowed: readonly (readonly number[])[]): void {
  assert.ok(
    allowed.some(one => one.join() === outcome.join()),
    `${outcome.join(', ')} is none of the defined outcomes`,
  )
}

/**
 * Declares the races that must end in one of their defined outcomes, never in a 5xx. `address` gives the registry to
 * send the next request to: the same one always, or one process and another in turn.
 */
export function describeRaces(address: () => string): void {
  const at = (location: string): string => new URL(new URL(location).pathname, address()).href
  const head = async (name: string, reference: string): Promise<Response> =>
    await fetch(`${address()}/v2/${name}/manifests/${reference}`, { method: 'HEAD' })

  const read = (name: string, digest: string): Promise<Response> => fetch(`${address()}/v2/${name}/blobs/${digest}`)

  for (const [algorithm, digestOf] of [
    ['sha256', sha256],
    ['sha512', sha512],
  ] as const) {
    void test(`${PARALLEL} uploads of one blob by ${algorithm}, into a repository that is new: all 201, one content`, async () => {
      const bytes = randomBytes(60_000)
      const digest = digestOf(bytes)
      const push = async (): Promise<Response> => {
        return await close(at(await openUpload(address(), `race/${algorithm}`)), digest, bytes)
      }
      assert.deepEqual(await statuses(Array.from({ length: PARALLEL }, push)), Array(PARALLEL).fill(201))
      await assertBytes(await read(`race/${algorithm}`, digest), bytes)
    })
  }

  void test(`${PARALLEL} pushes of one tag: all 201, and the tag is one of them (spec: Pushing Manifests)`, async () => {
    await pushBlob(address(), 'race/tag', CONFIG)
    const bodies = Array.from({ length: PARALLEL }, (_, n) => manifestOf(CONFIG, [], { annotations: { n: `${n}` } }))
    const pushes = bodies.map(body => putManifest(address(), 'race/tag', 'latest', body))
    assert.deepEqual(await statuses(pushes), Array(PARALLEL).fill(201))
    const now = await fetch(`${address()}/v2/race/tag/manifests/latest`)
    assert.ok(bodies.includes(await now.text()))
    for (const body of bodies) assert.equal((await head('race/tag', sha256(body))).status, 200)
  })

  void test('two chunks at one offset: one 202, one 416, and the content is the one that was taken', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const location = await openUpload(address(), 'race/chunk')
      const chunks: Bytes[] = [randomBytes(5_000), randomBytes(5_000)]
      const answers = await Promise.all(chunks.map(chunk => patch(at(location), chunk, 0)))
      isOneOf(
        answers.map(answer => answer.status).toSorted((a, b) => a - b),
        [202, 416],
      )
      const taken = chunks[answers.findIndex(answer => answer.status === 202)]
      assert.ok(taken !== undefined)
      assert.equal(await offsetOf(at(location)), 5_000)
      assert.equal((await close(at(location), sha256(taken))).status, 201)
      await assertBytes(await read('race/chunk', sha256(taken)), taken)
    }
  })

  void test('closing twice at once: both 201, since the content is there', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = randomBytes(3_000)
      const location = await openUpload(address(), 'race/close')
      assert.equal((await patch(at(location), bytes, 0)).status, 202)
      const closes = [1, 2].map(() => close(at(location), sha256(bytes)))
      assert.deepEqual(await statuses(closes), [201, 201])
      await assertBytes(await read('race/close', sha256(bytes)), bytes)
    }
  })

  void test('cancelling against closing: the blob is there and the cancel 404, or it is not and the close 404', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = randomBytes(3_000)
      const digest = sha256(bytes)
      const location = await openUpload(address(), 'race/cancel')
      const [closed, cancelled] = await Promise.all([
        close(at(location), digest, bytes),
        fetch(at(location), { method: 'DELETE' }),
      ])
      isOneOf([closed.status, cancelled.status], [201, 404], [404, 204])
      const found = await fetch(`${address()}/v2/race/cancel/blobs/${digest}`, { method: 'HEAD' })
      assert.equal(found.status, closed.status === 201 ? 200 : 404)
    }
  })

  void test('deleting a manifest against pushing its tag: the tag is whole or it is gone, never dangling', async () => {
    await pushBlob(address(), 'race/delete', CONFIG)
    const [old, fresh] = ['old', 'fresh'].map(v => manifestOf(CONFIG, [], { annotations: { v } })) as [string, string]
    const outcomes = new Set<string>()
    for (let round = 0; round < ROUNDS * 2; round++) {
      const name = 'race/delete'
      assert.equal((await putManifest(address(), name, 'v1', old)).status, 201)
      // Half of the rounds move the tag away from what is deleted, half of them push what is deleted again.
      const pushed = round % 2 === 0 ? fresh : old
      const push = (): Promise<Response> => putManifest(address(), name, 'v1', pushed)
      const remove = (): Promise<Response> =>
        fetch(`${address()}/v2/${name}/manifests/${sha256(old)}`, { method: 'DELETE' })
      const both = round % 4 < 2 ? [push(), remove()] : [remove(), push()]
      isOneOf(await statuses(both), [201, 202])
      const tag = await fetch(`${address()}/v2/${name}/manifests/v1`)
      const text = await tag.text()
      const target = await head(name, sha256(pushed))
      if (pushed === fresh) assert.equal(text, fresh)
      else assert.equal(tag.status, target.status, 'the tag and its manifest live and die together')
      outcomes.add(`${round % 2} ${tag.status}`)
    }
    assert.ok(outcomes.size >= 2)
  })

  void test('deleting a tag against deleting its manifest: both done, or the second of them 404', async () => {
    await pushBlob(address(), 'race/tags', CONFIG)
    for (let round = 0; round < ROUNDS; round++) {
      const body = manifestOf(CONFIG, [], { annotations: { round: `${round}` } })
      assert.equal((await putManifest(address(), 'race/tags', 'v1', body)).status, 201)
      const removals = ['v1', sha256(body)].map(reference =>
        fetch(`${address()}/v2/race/tags/manifests/${reference}`, { method: 'DELETE' }),
      )
      isOneOf(await statuses(removals), [202, 202], [202, 404])
      assert.equal((await head('race/tags', sha256(body))).status, 404)
      assert.equal((await head('race/tags', 'v1')).status, 404)
    }
  })

  void test('mounting against deleting the source: a mount is readable, and no mount is a session', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = randomBytes(2_000)
      const digest = await pushBlob(address(), 'race/source', bytes)
      const query = `mount=${digest}&from=${encodeURIComponent('race/source')}`
      const [mounted, removed] = await Promise.all([
        fetch(`${address()}/v2/race/target/blobs/uploads/?${query}`, { method: 'POST' }),
        fetch(`${address()}/v2/race/source/blobs/${digest}`, { method: 'DELETE' }),
      ])
      isOneOf([mounted.status, removed.status], [201, 202], [202, 202])
      if (mounted.status === 201) await assertBytes(await read('race/target', digest), bytes)
    }
  })

  void test('deleting a blob against pushing a manifest that names it: never a manifest without its blob', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const layer = randomBytes(1_000)
      await pushBlob(address(), 'race/names', CONFIG)
      const digest = await pushBlob(address(), 'race/names', layer)
      const [put, removed] = await Promise.all([
        putManifest(address(), 'race/names', 'v1', manifestOf(CONFIG, [layer])),
        fetch(`${address()}/v2/race/names/blobs/${digest}`, { method: 'DELETE' }),
      ])
      isOneOf([put.status, removed.status], [201, 405], [400, 202])
      const found = await fetch(`${address()}/v2/race/names/blobs/${digest}`, { method: 'HEAD' })
      assert.equal(found.status, put.status === 201 ? 200 : 404)
    }
  })
}
