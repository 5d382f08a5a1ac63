import type { Digest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { ContentTooLarge, WriteLost } from '../storage/blob-store.ts'

/** Which session of which repository. */
export interface UploadTarget {
  readonly name: RepositoryName
  readonly id: string
}

/** @throws RegistryError RANGE_INVALID with the present `Range` where a chunk starts elsewhere than the upload ends. */
export function checkStart(offset: number, start: number | undefined): void {
  if (start === undefined || start === offset) return
  throw new RegistryError('RANGE_INVALID', {
    message: `the upload holds ${offset} bytes, so the next chunk starts at ${offset}`,
    headers: presentRange(offset),
    detail: { offset },
  })
}

function presentRange(offset: number): { readonly Range: string } {
  return { Range: `0-${Math.max(offset - 1, 0)}` }
}

/** More came than was announced. */
export class RangeExceeded extends Error {
  override readonly name = 'RangeExceeded'
}

/** Holds a body to the bytes that were announced for it; without a number, anything may come. */
export class AnnouncedLength {
  #left: number

  constructor(most = Number.POSITIVE_INFINITY) {
    this.#left = most
  }

  /** @throws RangeExceeded with the first byte that is too many. */
  take({ byteLength }: Uint8Array): void {
    this.#left -= byteLength
    if (this.#left < 0) throw new RangeExceeded('more bytes came than were announced')
  }
}

/** A chunk went on after the end of its `Content-Range`. `offset`: how many bytes the upload holds now. */
export function pastRange(offset: number): RegistryError {
  return new RegistryError('RANGE_INVALID', {
    message: `the chunk is longer than its Content-Range; the upload holds ${offset} bytes`,
    headers: presentRange(offset),
    detail: { offset },
  })
}

/** There is no such session. */
export function unknownUpload(target: UploadTarget): RegistryError {
  return new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: target.id } })
}

/** What the store refuses for good, in the protocol's words; any other error as it is. */
export function refusalOf(error: unknown, target: UploadTarget): unknown {
  if (error instanceof WriteLost) {
    return new RegistryError('BLOB_UPLOAD_UNKNOWN', {
      message: 'the upload cannot be continued, start it again',
      detail: { upload: target.id },
      cause: error,
    })
  }
  if (error instanceof ContentTooLarge) {
    return new RegistryError('SIZE_INVALID', {
      status: 413,
      message: `the blob is larger than ${error.limitBytes} bytes`,
      detail: { limitBytes: error.limitBytes },
      cause: error,
    })
  }
  return error
}

/** The content is not what the digest says. */
export function wrongDigest(expected: Digest, received: string): RegistryError {
  return new RegistryError('DIGEST_INVALID', { detail: { expected, received } })
}
