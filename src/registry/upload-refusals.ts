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
    headers: { Range: `0-${Math.max(offset - 1, 0)}` },
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
