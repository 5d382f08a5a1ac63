import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { type ParsedManifest, parseManifest } from '../oci/manifest.ts'
import type { BlobCopies } from './blob-copies.ts'
import { inParallel } from './in-parallel.ts'
import { wantedEntries } from './platforms.ts'
import type { Content, Source, Target } from './sides.ts'

/** An image to copy, by its names at both sides. */
export interface Image {
  readonly repository: string
  readonly target: string
  readonly tag: string
}

/** How images are copied. */
export interface CopyOptions {
  readonly source: Source
  readonly target: Target
  readonly blobs: BlobCopies
  /** Of an index, which images; undefined: all. */
  readonly platforms: readonly string[] | undefined
  /** Whether what is about an image comes along. */
  readonly referrers: boolean
  /** Tags of a repository at the source that are made of the digest of what they are about. */
  readonly companions: (repository: string) => Promise<readonly string[]>
  readonly signal: AbortSignal
}

/** What was moved for an image. */
export interface Moved {
  manifests: number
  blobs: number
  bytes: number
}

/** What came of an image. */
export interface ImageOutcome {
  readonly outcome: 'copied' | 'up-to-date' | 'to-copy' | 'skipped'
  readonly reason: string | null
  readonly digest: Digest | null
}

/** A tag that moves while it is copied is looked at again so often. */
const LOOKS = 3
/** What belongs to one image at most, in manifests. */
const MOST_MANIFESTS = 10_000
/** Blobs of one image that move at once. */
const BLOBS_AT_ONCE = 3

/** What would come of an image. Changes nothing. @throws UpstreamFailure, RegistryError */
export async function lookAtImage({ source, target }: CopyOptions, image: Image): Promise<ImageOutcome> {
  const digest = await source.resolve(image.repository, image.tag)
  if (digest === undefined) return gone()
  const there = await target.resolve(image.target, image.tag)
  if (there === digest) return { outcome: 'up-to-date', reason: null, digest }
  return { outcome: 'to-copy', reason: there === undefined ? 'it is new' : `it is ${there} there now`, digest }
}

/**
 * Copies an image with all that belongs to it, and points the tag at it last: of each manifest its blobs, of an index its
 * images, then itself, then what is about it. What the target has already is left alone. A tag is taken as it is when it
 * is looked at; where it has moved and what it named is gone before that was read, it is looked at again.
 * @throws UpstreamFailure, RegistryError
 */
export async function copyImage(options: CopyOptions, image: Image, moved: Moved): Promise<ImageOutcome> {
  const { source } = options
  for (let looks = 1; ; looks += 1) {
    const digest = await source.resolve(image.repository, image.tag)
    if (digest === undefined) return gone()
    const walk: Walk = { ...options, image, moved, seen: new Map(), tagged: 0 }
    const root = await copyManifest(walk, digest)
    if (root === undefined) {
      if (looks < LOOKS) continue
      throw new UpstreamFailure('absent', `the tag names ${digest}, which the source does not have`)
    }
    if (root === 'unwanted') return { outcome: 'skipped', reason: 'it has none of the platforms', digest }
    if (options.referrers) await copyCompanions(walk)
    await pointTag(walk, image.tag, digest, root)
    const hasMoved = walk.tagged + moved.manifests + moved.blobs > 0
    return { outcome: hasMoved ? 'copied' : 'up-to-date', reason: null, digest }
  }
}

function gone(): ImageOutcome {
  return { outcome: 'skipped', reason: 'the tag was deleted at the source', digest: null }
}

/** A manifest that was looked at: undefined where the source does not have it, `unwanted` an index of which nothing is wanted. */
type Seen = Content | 'unwanted' | undefined

/** One image while it is walked through. */
interface Walk extends CopyOptions {
  readonly image: Image
  readonly moved: Moved
  readonly seen: Map<Digest, Seen>
  /** How many tags were pointed at something else. */
  tagged: number
}

async function copyManifest(walk: Walk, digest: Digest): Promise<Seen> {
  const { seen, signal } = walk
  if (seen.has(digest)) return seen.get(digest)
  signal.throwIfAborted()
  if (seen.size >= MOST_MANIFESTS) throw new UpstreamFailure('refused', 'more manifests belong to it than to any image')
  // Before it is copied: what is about something that is about itself ends here.
  seen.set(digest, undefined)
  const copied = await copyOne(walk, digest)
  seen.set(digest, copied)
  return copied
}

async function copyOne(walk: Walk, digest: Digest): Promise<Seen> {
  const { source, target, image, platforms, moved } = walk
  const there = await target.find(image.target, digest)
  const read = there?.content ?? (await source.manifest(image.repository, digest))
  if (read === undefined) return undefined
  const parsed = parseManifest(read.bytes, read.mediaType === '' ? undefined : read.mediaType)
  const content = { mediaType: parsed.mediaType, bytes: read.bytes }
  const isWanted = parsed.kind === 'index' ? wantedEntries(content.bytes, platforms) : () => true
  const children = parsed.children.filter(isWanted)
  if (parsed.children.length > 0 && children.length === 0) return 'unwanted'
  // One that the source does not have itself is left out: a sparse index stays one.
  for (const child of children) await copyManifest(walk, child)
  if (there === undefined || target.mayLackBlobs) await copyBlobs(walk, parsed, isWanted)
  if (there === undefined) {
    await target.putManifest(image.target, digest, content)
    moved.manifests += 1
  }
  if (walk.referrers) {
    for (const referrer of await source.referrers(image.repository, digest)) await copyManifest(walk, referrer)
  }
  return content
}

/** The blobs that a manifest names; those that it can do without (entries of an index) where the source has them. */
async function copyBlobs(walk: Walk, { blobs }: ParsedManifest, isWanted: (digest: Digest) => boolean): Promise<void> {
  const { image, moved } = walk
  const wanted = blobs.filter(({ digest }) => isWanted(digest))
  await inParallel(wanted, BLOBS_AT_ONCE, async ({ digest, required }) => {
    try {
      const bytes = await walk.blobs.copy(image, digest, count => (moved.bytes += count))
      if (bytes !== undefined) moved.blobs += 1
    } catch (error) {
      if (required || !isAbsent(error)) throw error
    }
  })
}

function isAbsent(error: unknown): boolean {
  if (error instanceof UpstreamFailure) return error.kind === 'absent'
  return error instanceof RegistryError && error.code === 'BLOB_UNKNOWN'
}

/** Tags such as `sha256-….sig`, by which cosign finds signatures of manifests that were copied. */
async function copyCompanions(walk: Walk): Promise<void> {
  const { source, seen } = walk
  const { repository } = walk.image
  const tags = await walk.companions(repository)
  // What they name may have companions itself: entries that come while a map is walked are walked as well.
  for (const digest of tags.length === 0 ? [] : seen.keys()) {
    const beginning = `${digest.replace(':', '-')}.`
    for (const tag of tags.filter(each => each.startsWith(beginning))) {
      const named = await source.resolve(repository, tag)
      const content = named === undefined ? undefined : await copyManifest(walk, named)
      if (named === undefined || content === undefined || content === 'unwanted') continue
      await pointTag(walk, tag, named, content)
    }
  }
}

async function pointTag(walk: Walk, tag: string, digest: Digest, content: Content): Promise<void> {
  const { target, image } = walk
  if ((await target.resolve(image.target, tag)) === digest) return
  await target.tag(image.target, tag, digest, content)
  walk.tagged += 1
}
