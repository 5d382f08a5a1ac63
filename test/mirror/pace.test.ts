import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { after, afterEach, before, suite, test } from 'node:test'
import { BlobFetch, type FetchOptions } from '../../src/mirror/blob-fetch.ts'
import { BlobSource } from '../../src/mirror/blob-source.ts'
import { Mirror } from '../../src/mirror/mirror.ts'
import { refusalOf } from '../../src/mirror/refusals.ts'
import { Slots } from '../../src/mirror/slots.ts'
import { parseDigest } from '../../src/oci/digest.ts'
import { RegistryError } from '../../src/oci/errors.ts'
import { parseName } from '../../src/oci/name.ts'
import { type BlobUpstream, startBlobUpstream } from '../support/blob-upstream.ts'
import { digestOf } from '../support/client.ts'

const PACE = { bytes: 1_000, ms: 100 }
const LONG_MS = 600_000

void suite('an upstream that hardly sends', () => {
  let upstream: BlobUpstream
  let mirror: Mirror
  let spoolDirectory: string
  const trickling = new Set<NodeJS.Timeout>()

  before(async () => {
    upstream = await startBlobUpstream()
    spoolDirectory = await mkdtemp(join(tmpdir(), 'berth-pace-'))
    mirror = new Mirror({
      prefix: parseName('m'),
      upstream: {
        url: new URL(upstream.url),
        allowPrivate: true,
        trustedHosts: [],
        contentHosts: [],
        documentMaxBytes: 1_000,
      },
      allows: () => true,
      allowedNames: [],
      tagLives: [],
      defaultTtlMs: 0,
      offline: false,
      keepsDeleted: false,
      patienceMs: LONG_MS,
    })
  })
  afterEach(() => {
    for (const timer of trickling) clearInterval(timer)
    trickling.clear()
    upstream.asked.splice(0)
  })
  after(async () => {
    await mirror.upstream.close()
    await upstream.close()
    await rm(spoolDirectory, { recursive: true })
  })

  /** Begins a fetch of `content`, which the upstream has; `stored` is what reached the store. */
  async function begin(content: Buffer, options: Partial<FetchOptions>, slots = new Slots(1), turnMs = LONG_MS) {
    const digest = parseDigest(digestOf(content))
    upstream.blobs.set(digest, content)
    const source = new BlobSource({
      mirror,
      repository: 'a',
      name: parseName('m/a'),
      digest,
      copies: { sendBlob: () => Promise.reject(new Error('nothing is stored')) },
      findStored: async () => undefined,
      slots,
      turnMs,
      sharing: undefined,
      spoolDirectory,
      onHeld: () => undefined,
    })
    const stored: Buffer[] = []
    const failures: unknown[] = []
    const fetch = await BlobFetch.begin({
      source,
      host: mirror.upstream.host,
      digest,
      spoolDirectory,
      isShared: false,
      maxBytes: 2 ** 30,
      goOnShare: 0.5,
      patienceMs: LONG_MS,
      // However slow the machine is.
      retries: 10_000,
      pace: PACE,
      isNeeded: async () => true,
      store: async (body: Readable) => {
        for await (const chunk of body) stored.push(chunk as Buffer)
      },
      onFailure: error => failures.push(error),
      closing: new AbortController().signal,
      ...options,
    })
    assert.ok(fetch !== undefined)
    return { fetch, slots, stored: () => Buffer.concat(stored), failures }
  }

  /** Sends a byte now and then, for ever. */
  function trickle(content: Buffer, res: ServerResponse): void {
    res.writeHead(200, { 'Content-Length': String(content.byteLength) })
    res.write(content.subarray(0, 10))
    let at = 10
    trickling.add(setInterval(() => res.write(content.subarray(at, (at += 1))), 10))
  }

  void test('is broken off and asked for the rest, whether or not anybody waits (RFC 9110 section 14)', async () => {
    const content = randomBytes(200_000)
    let turn = 0
    upstream.answer = (_ask, res) => {
      turn += 1
      if (turn === 1) trickle(content, res)
      return turn === 1
    }
    const { fetch, stored } = await begin(content, {})
    await fetch.ended
    assert.ok(stored().equals(content))
    assert.deepEqual([fetch.isBroken, upstream.asked[0]?.range], [false, undefined])
    assert.match(upstream.asked[1]?.range ?? '', /^bytes=\d+-$/)
  })

  void test('is given up when it goes on like that, and what it held is free for the next', async () => {
    const content = randomBytes(200_000)
    upstream.answer = (_ask, res) => {
      trickle(content, res)
      return true
    }
    const { fetch, slots, failures } = await begin(content, { retries: 1 })
    await fetch.ended
    assert.ok(fetch.isBroken)
    assert.match(String(fetch.failure), /sends less than 1000 bytes in 0\.1 s/)
    assert.equal(failures.length, 1)
    assert.deepEqual(await readdir(spoolDirectory), [])
    assert.notEqual(await slots.take(1, new AbortController().signal), undefined)
  })

  void test('a fetch that nobody waits for ends before half of it has come, and frees its place', async () => {
    const content = randomBytes(200_000)
    upstream.answer = () => false
    upstream.gate = 1_000
    const { fetch, slots } = await begin(content, { patienceMs: 1, pace: { bytes: 0, ms: LONG_MS } })
    await fetch.ended
    upstream.gate = Infinity
    assert.ok(fetch.isBroken)
    assert.notEqual(await slots.take(1, new AbortController().signal), undefined)
  })

  void test('a fetch that nobody waits for is brought to its end where enough of it has come', async () => {
    const content = randomBytes(200_000)
    upstream.answer = () => false
    upstream.gate = 100_000
    const opened = await begin(content, { patienceMs: 1, goOnShare: 0, pace: { bytes: 0, ms: LONG_MS } })
    // Timers of one length fire in order: its patience is over after this.
    await delay(1)
    upstream.gate = Infinity
    await opened.fetch.ended
    assert.ok(opened.stored().equals(content))
  })

  void test('what waited for its turn in vain is refused for now: 503 with Retry-After (RFC 9110 section 10.2.3)', async () => {
    const slots = new Slots(1)
    await slots.take(LONG_MS, new AbortController().signal)
    upstream.answer = () => false
    const refused = await begin(randomBytes(1_000), {}, slots, 1).then(
      () => undefined,
      (error: unknown) => refusalOf(error, 'BLOB_UNKNOWN'),
    )
    assert.ok(refused instanceof RegistryError)
    assert.deepEqual([refused.status, refused.headers], [503, { 'Retry-After': '5' }])
    assert.deepEqual(upstream.asked, [])
  })
})
