import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { AcknowledgedBlob, AcknowledgedManifest, Ledger } from './model.ts'

/** What one verification looked at. */
export interface Verified {
  blobs: number
  manifests: number
  tags: number
}

/** The keys that were verified already, so that a round looks at what is new. */
export type Seen = Set<string>

/**
 * Asserts what a kill must not change: everything acknowledged is there byte for byte, a tag is what it was told to be
 * and whole, and nothing half is visible.
 */
export async function verify(url: string, ledger: Ledger, seen: Seen): Promise<Verified> {
  const verified = { blobs: 0, manifests: 0, tags: 0 }
  for (const [key, blob] of ledger.blobs) {
    if (seen.has(key)) continue
    await verifyBlob(url, blob)
    seen.add(key)
    verified.blobs += 1
  }
  for (const [key, manifest] of ledger.manifests) {
    if (seen.has(key)) continue
    await verifyManifest(url, manifest)
    seen.add(key)
    verified.manifests += 1
  }
  for (const { repository, tag, possible, certain } of ledger.tags.values()) {
    const got = await fetch(`${url}/v2/${repository}/manifests/${tag}`)
    const bytes = Buffer.from(await got.arrayBuffer())
    const name = `${repository}:${tag}`
    if (got.status === 404) assert.ok(certain === null || certain === undefined, `${name} is gone`)
    else {
      assert.equal(got.status, 200, name)
      const digest = got.headers.get('docker-content-digest') ?? ''
      assert.ok(possible.has(digest), `${name} points to what was never pushed to it`)
      if (certain !== undefined) assert.equal(digest, certain, `${name} points to something else than acknowledged`)
      await verifyWhole(url, repository, digest, bytes)
    }
    verified.tags += 1
  }
  for (const { repository, digest, bytes } of ledger.interrupted) {
    const head = await fetch(`${url}/v2/${repository}/blobs/${digest}`, { method: 'HEAD' })
    if (head.status !== 404) await verifyBlob(url, { repository, digest, size: bytes.byteLength })
  }
  return verified
}

async function verifyBlob(url: string, { repository, digest, size }: AcknowledgedBlob): Promise<void> {
  const got = await fetch(`${url}/v2/${repository}/blobs/${digest}`)
  assert.equal(got.status, 200, `${repository} ${digest}: acknowledged and not there`)
  const bytes = Buffer.from(await got.arrayBuffer())
  assert.equal(bytes.byteLength, size, digest)
  assert.equal(hashOf(bytes), digest)
  assert.equal(got.headers.get('docker-content-digest'), digest)
}

async function verifyManifest(url: string, manifest: AcknowledgedManifest): Promise<void> {
  const got = await fetch(`${url}/v2/${manifest.repository}/manifests/${manifest.digest}`)
  assert.equal(got.status, 200, `${manifest.repository}@${manifest.digest}: acknowledged and not there`)
  assert.equal(hashOf(Buffer.from(await got.arrayBuffer())), manifest.digest)
  assert.equal(got.headers.get('content-type'), manifest.mediaType)
}

/** The manifest a tag points to is there with all it names. */
async function verifyWhole(url: string, repository: string, digest: string, bytes: Buffer): Promise<void> {
  assert.equal(hashOf(bytes), digest)
  const { config, layers } = JSON.parse(bytes.toString()) as Record<'config', { digest: string }> & {
    layers: { digest: string }[]
  }
  for (const named of [config, ...layers]) {
    const head = await fetch(`${url}/v2/${repository}/blobs/${named.digest}`, { method: 'HEAD' })
    assert.equal(head.status, 200, `${repository}@${digest} names ${named.digest}, which is not there`)
  }
}

/** Asserts that every finished file of the store is whole content that somebody sent; answers their number. */
export async function verifyFiles(dataDir: string, ledger: Ledger): Promise<number> {
  const blobs = join(dataDir, 'storage', 'blobs')
  const files = (await readdir(blobs, { recursive: true, withFileTypes: true })).filter(entry => entry.isFile())
  for (const file of files) {
    const hash = createHash('sha256')
    await pipeline(createReadStream(join(file.parentPath, file.name)), hash)
    assert.ok(ledger.sent.has(`sha256:${hash.digest('hex')}`), `${file.name} is a part of something`)
  }
  return files.length
}

function hashOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
