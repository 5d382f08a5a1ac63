import type { Readable } from 'node:stream'
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  type ServerSideEncryption,
  type StorageClass,
  UploadPartCommand,
} from '@aws-sdk/client-s3'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { BlobMissing, StoreUnavailable, type StorageKey, type StoredItem, WriteLost } from './blob-store.ts'
import { checked, isKey } from './keys.ts'
import { type S3Options, codeOf, createClient, statusOf, translated } from './s3-client.ts'
import { stateOf } from './s3-state.ts'

/** What `get` answers: some bytes of an object, from where it was asked. */
export interface ObjectBody {
  readonly body: Readable
  /** Bytes that `body` should have. */
  readonly length: number
}

/** The requests we make of a bucket, one method each, in our keys and our errors. Repeating any of them is harmless. */
export class S3Bucket {
  readonly options: S3Options
  readonly #client: S3Client
  readonly #signer: S3Client

  constructor(options: S3Options) {
    this.options = options
    this.#client = createClient(options)
    this.#signer = options.publicEndpoint === undefined ? this.#client : createClient(options, options.publicEndpoint)
  }

  /** The client, for the check at the start, which wants the server's own words. */
  get client(): S3Client {
    return this.#client
  }

  /** `<prefix>3f/3f…`: the first two digits spread keys over a store's partitions. */
  nameOf(key: StorageKey): string {
    return `${this.options.prefix}${checked(key).slice(0, 2)}/${key}`
  }

  async put(key: StorageKey, bytes: Uint8Array): Promise<void> {
    await this.#asked('PutObject', () =>
      this.#client.send(new PutObjectCommand({ ...this.#at(key), ...this.#kept(), ...sized(bytes) })),
    )
  }

  /** Bytes `start` to `end` (inclusive), or from `start` on. @throws BlobMissing */
  async get(key: StorageKey, start: number, end: number | undefined, signal: AbortSignal): Promise<ObjectBody> {
    // An empty object has no first byte that a range could name.
    const range = start === 0 && end === undefined ? {} : { Range: `bytes=${start}-${end ?? ''}` }
    const { Body: body, ContentLength: length } = await this.#asked('GetObject', () =>
      this.#client
        .send(new GetObjectCommand({ ...this.#at(key), ...range }), { abortSignal: signal })
        .catch((error: unknown) => {
          throw isAbsent(error) ? new BlobMissing(`No blob has the key ${key}`, { cause: error }) : error
        }),
    )
    if (body === undefined || length === undefined) throw new StoreUnavailable('S3 sent an object without its length')
    return { body: body as Readable, length }
  }

  async head(key: StorageKey): Promise<{ readonly size: number } | undefined> {
    const found = await this.#asked('HeadObject', () =>
      this.#client.send(new HeadObjectCommand(this.#at(key))).catch((error: unknown) => {
        if (isAbsent(error)) return undefined
        throw error
      }),
    )
    return found === undefined ? undefined : { size: found.ContentLength ?? 0 }
  }

  /** Absent is success. */
  async remove(key: StorageKey): Promise<void> {
    await this.#asked('DeleteObject', () =>
      this.#client.send(new DeleteObjectCommand(this.#at(key))).catch((error: unknown) => {
        if (!isAbsent(error)) throw error
      }),
    )
  }

  /** Begins a multipart upload to `key`; answers its id. */
  async createUpload(key: StorageKey): Promise<string> {
    const { UploadId: id } = await this.#asked('CreateMultipartUpload', () =>
      this.#client.send(new CreateMultipartUploadCommand({ ...this.#at(key), ...this.#kept() })),
    )
    if (id === undefined) throw new StoreUnavailable('S3 began a multipart upload without an id')
    return id
  }

  /** Stores a part, the first being 1; answers its ETag exactly as the store wants it back. @throws WriteLost */
  async putPart(key: StorageKey, uploadId: string, number: number, bytes: Uint8Array): Promise<string> {
    const part = { ...this.#at(key), UploadId: uploadId, PartNumber: number, ...sized(bytes) }
    const { ETag: etag } = await this.#asked('UploadPart', () =>
      this.#client.send(new UploadPartCommand(part)).catch((error: unknown) => {
        throw codeOf(error) === 'NoSuchUpload' ? new WriteLost('The multipart upload is gone', { cause: error }) : error
      }),
    )
    if (etag === undefined) throw new StoreUnavailable('S3 stored a part without an ETag')
    return etag
  }

  /**
   * Makes the parts the object. False when there is no such upload: completed before, or gone.
   * @throws WriteLost when a part is not the one we stored.
   */
  async completeUpload(key: StorageKey, uploadId: string, etags: readonly string[]): Promise<boolean> {
    const parts = etags.map((etag, index) => ({ ETag: etag, PartNumber: index + 1 }))
    const request = { ...this.#at(key), UploadId: uploadId, MultipartUpload: { Parts: parts } }
    return await this.#asked('CompleteMultipartUpload', async () => {
      try {
        await this.#client.send(new CompleteMultipartUploadCommand(request))
        return true
      } catch (error) {
        if (codeOf(error) === 'NoSuchUpload') return false
        if (codeOf(error) === 'InvalidPart') throw new WriteLost('A part is not the one stored', { cause: error })
        throw error
      }
    })
  }

  /** Absent is success. */
  async abortUpload(key: StorageKey, uploadId: string): Promise<void> {
    await this.#asked('AbortMultipartUpload', () =>
      this.#client
        .send(new AbortMultipartUploadCommand({ ...this.#at(key), UploadId: uploadId }))
        .catch((error: unknown) => {
          if (codeOf(error) !== 'NoSuchUpload' && !isAbsent(error)) throw error
        }),
    )
  }

  /** Every object under the prefix that has a key of ours. */
  async *objects(): AsyncGenerator<StoredItem> {
    let token: string | undefined
    do {
      const request = { Bucket: this.options.bucket, Prefix: this.options.prefix, ContinuationToken: token }
      const page = await this.#asked('ListObjectsV2', () => this.#client.send(new ListObjectsV2Command(request)))
      for (const { Key: name, LastModified: modified } of page.Contents ?? []) {
        const key = this.#keyOf(name)
        if (key !== undefined && modified !== undefined) yield { key, modified }
      }
      token = page.NextContinuationToken
    } while (token !== undefined)
  }

  /** Every multipart upload under the prefix that is neither completed nor aborted. */
  async *uploads(): AsyncGenerator<StoredItem> {
    let marker: { KeyMarker?: string | undefined; UploadIdMarker?: string | undefined } | undefined
    do {
      const request = { Bucket: this.options.bucket, Prefix: this.options.prefix, ...marker }
      const page = await this.#asked('ListMultipartUploads', () =>
        this.#client.send(new ListMultipartUploadsCommand(request)),
      )
      for (const { Key: name, UploadId: uploadId, Initiated: modified } of page.Uploads ?? []) {
        const key = this.#keyOf(name)
        if (key === undefined || uploadId === undefined || modified === undefined) continue
        yield { key, modified, unfinished: stateOf({ key, uploadId, partBytes: 0, parts: [], holds: [] }) }
      }
      marker =
        page.IsTruncated === true
          ? { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
          : undefined
    } while (marker !== undefined)
  }

  /** The text of the marker object. */
  async readMarker(): Promise<string | undefined> {
    return await this.#asked('GetObject', async () => {
      try {
        const { Body: body } = await this.#client.send(new GetObjectCommand(this.#markerAt()))
        return await body?.transformToString()
      } catch (error) {
        if (isAbsent(error)) return undefined
        throw error
      }
    })
  }

  async writeMarker(text: string): Promise<void> {
    const request = { ...this.#markerAt(), ...this.#kept(), ...sized(Buffer.from(text)) }
    await this.#asked('PutObject', () => this.#client.send(new PutObjectCommand(request)))
  }

  /** A URL by which anyone may GET the object. */
  async presign(key: StorageKey, ttlSeconds: number, contentType: string): Promise<URL> {
    const request = new GetObjectCommand({ ...this.#at(key), ResponseContentType: contentType })
    const url = await this.#asked('presigning', () => getSignedUrl(this.#signer, request, { expiresIn: ttlSeconds }))
    return new URL(url)
  }

  close(): void {
    this.#client.destroy()
    if (this.#signer !== this.#client) this.#signer.destroy()
  }

  #at(key: StorageKey): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.options.bucket, Key: this.nameOf(key) }
  }

  #markerAt(): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.options.bucket, Key: `${this.options.prefix}marker` }
  }

  /** How an object is kept; said once for each object, when it begins. */
  #kept(): { ServerSideEncryption?: ServerSideEncryption; SSEKMSKeyId?: string; StorageClass?: StorageClass } {
    const { encryption, kmsKeyId, storageClass } = this.options
    return {
      ...(encryption === undefined ? {} : { ServerSideEncryption: encryption }),
      ...(kmsKeyId === undefined ? {} : { SSEKMSKeyId: kmsKeyId }),
      ...(storageClass === undefined ? {} : { StorageClass: storageClass as StorageClass }),
    }
  }

  #keyOf(name: string | undefined): StorageKey | undefined {
    const text = name?.slice(-32) ?? ''
    return isKey(text) && name === this.nameOf(text) ? text : undefined
  }

  async #asked<T>(operation: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw translated(error, operation)
    }
  }
}

function sized(bytes: Uint8Array): { readonly Body: Uint8Array; readonly ContentLength: number } {
  return { Body: bytes, ContentLength: bytes.byteLength }
}

function isAbsent(error: unknown): boolean {
  const code = codeOf(error)
  return code === 'NoSuchKey' || code === 'NotFound' || (statusOf(error) === 404 && code !== 'NoSuchBucket')
}
