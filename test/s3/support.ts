import { randomBytes } from 'node:crypto'
import {
  AbortMultipartUploadCommand,
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  S3Client,
} from '@aws-sdk/client-s3'
import { type S3Store, type S3StoreOptions, openS3Store } from '../../src/storage/s3.ts'

/** A server of `scripts/with-s3.ts`. */
export interface TestS3 {
  readonly name: string
  readonly endpoint: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
}

const MiB = 1024 * 1024

/** Every server that BERTH_TEST_S3 names. @throws Error where none is: these tests never pass by doing nothing. */
export function testServers(): TestS3[] {
  const given = process.env['BERTH_TEST_S3']
  if (given === undefined) throw new Error('BERTH_TEST_S3 is missing: run this by `npm run test:s3`')
  const servers = Object.entries(JSON.parse(given) as Record<string, Omit<TestS3, 'name'>>)
  if (servers.length === 0) throw new Error('BERTH_TEST_S3 names no server')
  return servers.map(([name, server]) => ({ name, ...server }))
}

/** A bucket of one test's own. */
export interface TestBucket {
  readonly server: TestS3
  readonly bucket: string
  /** What such a store is opened with. */
  readonly options: S3StoreOptions
  /** A store in it, straight at the server or by another endpoint. */
  open(options?: Partial<S3StoreOptions>): S3Store
  /** The settings of a registry that keeps its blobs here, straight at the server or by another endpoint. */
  settings(endpoint?: string): Record<string, string>
  /** Names of all objects, and `upload:` names of all multipart uploads. */
  contents(): Promise<string[]>
  remove(): Promise<void>
}

/** Creates a bucket. */
export async function createBucket(server: TestS3): Promise<TestBucket> {
  const bucket = `berth-${randomBytes(8).toString('hex')}`
  const { endpoint, accessKeyId, secretAccessKey } = server
  const client = new S3Client({
    region: 'us-east-1',
    endpoint,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    requestChecksumCalculation: 'WHEN_REQUIRED',
  })
  await client.send(new CreateBucketCommand({ Bucket: bucket }))
  const objects = async (): Promise<string[]> => {
    const names: string[] = []
    for (let token: string | undefined, isMore = true; isMore; isMore = token !== undefined) {
      const page = await client.send(new ListObjectsV2Command({ Bucket: bucket, ContinuationToken: token }))
      names.push(...(page.Contents ?? []).map(object => object.Key ?? ''))
      token = page.NextContinuationToken
    }
    return names
  }
  const uploads = async (): Promise<{ Key: string; UploadId: string }[]> => {
    const page = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))
    return (page.Uploads ?? []).map(({ Key = '', UploadId = '' }) => ({ Key, UploadId }))
  }
  const options: S3StoreOptions = {
    bucket,
    prefix: 'registry/',
    region: 'us-east-1',
    endpoint,
    pathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
    idleTimeoutMs: 20_000,
    attempts: 4,
    uploadMemoryBytes: 64 * MiB,
  }
  return {
    server,
    bucket,
    options,
    open: more => openS3Store({ ...options, ...more }),
    settings: (reached = endpoint) => ({
      BERTH_STORAGE_DRIVER: 's3',
      BERTH_STORAGE_S3_BUCKET: bucket,
      BERTH_STORAGE_S3_PREFIX: 'registry/',
      BERTH_STORAGE_S3_ENDPOINT: reached,
      BERTH_STORAGE_S3_ACCESS_KEY_ID: accessKeyId,
      BERTH_STORAGE_S3_SECRET_ACCESS_KEY: secretAccessKey,
    }),
    contents: async () => [...(await objects()), ...(await uploads()).map(({ Key }) => `upload:${Key}`)],
    async remove() {
      for (const upload of await uploads())
        await client.send(new AbortMultipartUploadCommand({ Bucket: bucket, ...upload }))
      for (const Key of await objects()) await client.send(new DeleteObjectCommand({ Bucket: bucket, Key }))
      await client.send(new DeleteBucketCommand({ Bucket: bucket }))
      client.destroy()
    },
  }
}
