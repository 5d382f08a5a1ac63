import type { Readable } from 'node:stream'
import type { Digest } from '../oci/digest.ts'

/** A manifest, verbatim. */
export interface Content {
  /** Empty where the registry does not say. */
  readonly mediaType: string
  readonly bytes: Uint8Array
}

/** Bytes of a blob from `start` on. */
export interface BlobPart {
  readonly body: Readable
  /** May be less than what was asked for, where a registry takes no ranges. */
  readonly start: number
  /** Bytes of the whole blob, where the registry says. */
  readonly size: number | undefined
}

/**
 * Where images come from. Repository names are its own. Every method fails with UpstreamFailure or RegistryError where
 * it cannot give what it is asked for, or with the reason of the signal that the side was opened with.
 */
export interface Source {
  /** Names of repositories that match a pattern with `*` in it. */
  repositories(pattern: string): Promise<readonly string[]>
  tags(repository: string): Promise<readonly string[]>
  /** What a tag names now; undefined where there is no such tag. */
  resolve(repository: string, tag: string): Promise<Digest | undefined>
  /** Undefined where it is not there. */
  manifest(repository: string, digest: Digest): Promise<Content | undefined>
  /** Manifests whose subject is `digest`. */
  referrers(repository: string, digest: Digest): Promise<readonly Digest[]>
  /** A blob from byte `start` on. */
  blob(repository: string, digest: Digest, start: number): Promise<BlobPart>
}

/** Where the bytes of a blob come from. */
export interface BlobOrigin {
  /** Gives it from a byte on. */
  readonly open: (start: number) => Promise<BlobPart>
  /** Told of bytes as they move. */
  readonly onBytes: (count: number) => void
  /** A repository at the target to which it was moved a moment ago. */
  readonly home: string | undefined
}

/** Where images go. Repository names are its own; failures are those of {@link Source}. */
export interface Target {
  /** What a tag names now; undefined where there is no such tag. */
  resolve(repository: string, tag: string): Promise<Digest | undefined>
  /** Whether a manifest is there; its content too, where it costs nothing. */
  find(repository: string, digest: Digest): Promise<{ readonly content?: Content } | undefined>
  /** Whether blobs of manifests that are there may be missing all the same. */
  readonly mayLackBlobs: boolean
  /**
   * Makes sure that a blob is there, and goes on where it broke off. Answers how many bytes were moved, or undefined
   * where none had to be.
   */
  putBlob(repository: string, digest: Digest, from: BlobOrigin): Promise<number | undefined>
  /** Stores a manifest by its digest. */
  putManifest(repository: string, digest: Digest, content: Content): Promise<void>
  /** Points a tag at a manifest that is there. */
  tag(repository: string, tag: string, digest: Digest, content: Content): Promise<void>
}
