import { randomBytes } from 'node:crypto'
import { ListMultipartUploadsCommand, ListObjectsV2Command } from '@aws-sdk/client-s3'
import { BlobMissing } from './blob-store.ts'
import { newKey } from './keys.ts'
import type { S3Bucket } from './s3-bucket.ts'
import { type S3Options, codeOf, statusOf } from './s3-client.ts'
import { readObject } from './s3-reader.ts'

/** The bucket cannot be used as it is configured; the message says what to mend. */
export class BucketUnusable extends Error {
  override readonly name = 'BucketUnusable'
}

const signal = new AbortController().signal

/**
 * Does once, with an object of its own, everything the store will ever ask of the bucket.
 * @throws BucketUnusable at the first thing that is refused.
 */
export async function checkBucket(bucket: S3Bucket): Promise<void> {
  const { options } = bucket
  const step = async <T>(permission: string, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
      throw new BucketUnusable(explain(cause, permission, options), { cause })
    }
  }
  const [key, absent] = [newKey(), newKey()]
  const bytes = randomBytes(64)
  await step('s3:ListBucket', () =>
    bucket.client.send(new ListObjectsV2Command({ Bucket: options.bucket, Prefix: options.prefix, MaxKeys: 1 })),
  )
  await step('s3:ListBucketMultipartUploads', () =>
    bucket.client.send(
      new ListMultipartUploadsCommand({ Bucket: options.bucket, Prefix: options.prefix, MaxUploads: 1 }),
    ),
  )
  await step('s3:PutObject', () => bucket.put(key, bytes))
  try {
    const read = await step('s3:GetObject', async () => {
      const chunks: Uint8Array[] = []
      for await (const chunk of readObject(bucket, key, undefined, signal)) chunks.push(chunk)
      return Buffer.concat(chunks)
    })
    if (!read.equals(bytes)) throw new BucketUnusable(`${where(options)} gave back other bytes than it was given`)
  } finally {
    // Where removing is refused too, what was refused first is said.
    await bucket.remove(key).catch(() => undefined)
  }
  await step('s3:DeleteObject', () => bucket.remove(key))
  const uploadId = await step('s3:PutObject', () => bucket.createUpload(key))
  await step('s3:AbortMultipartUpload', () => bucket.abortUpload(key, uploadId))
  await expectMissing(bucket, absent)
}

/** A store that says 403 or gives something for what is not there would make every question about a blob wrong. */
async function expectMissing(bucket: S3Bucket, key: ReturnType<typeof newKey>): Promise<void> {
  const { options } = bucket
  try {
    await bucket.get(key, 0, undefined, signal)
  } catch (error) {
    if (error instanceof BlobMissing) return
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
    throw new BucketUnusable(explain(cause, 's3:ListBucket', options), { cause })
  }
  throw new BucketUnusable(`${where(options)} answers for an object that was never put`)
}

function where({ bucket, endpoint, region }: S3Options): string {
  return `The bucket ${bucket} at ${endpoint ?? `AWS ${region}`}`
}

/** What to mend, by what the server, the network or the SDK said. */
function explain(error: unknown, permission: string, options: S3Options): string {
  const code = codeOf(error)
  const said = error instanceof Error ? error.message : String(error)
  const at = where(options)
  const advice = ADVICE[code]
  if (advice !== undefined) return `${at}: ${advice(options, error)} (${code}: ${said})`
  if (/^(?:CERT_|DEPTH_ZERO_SELF|SELF_SIGNED|UNABLE_TO_|ERR_TLS_)/.test(code)) {
    return `${at}: its TLS certificate is not trusted; name its authority in storage.s3.caFile (${code}: ${said})`
  }
  if (/^(?:EPROTO|ERR_SSL_)/.test(code)) {
    return `${at}: it does not speak TLS as expected; is storage.s3.endpoint https where it should be http? (${code})`
  }
  const status = statusOf(error)
  if (status === 403) return `${at}: ${permission} is not allowed for these credentials (${code}: ${said})`
  if (status === 301 || status === 307) return `${at}: it lies in another region${regionOf(error)} (${code})`
  if (status === 404) return `${at}: there is no such bucket (${code}: ${said})`
  return `${at}: ${permission} failed (${code}: ${said})`
}

type Advice = (options: S3Options, error: unknown) => string

const CREDENTIALS: Advice = ({ credentials }) =>
  credentials === undefined
    ? 'no usable credentials were found; set storage.s3.accessKeyId and secretAccessKey, or what the AWS SDK looks for'
    : 'the access key is not known; check storage.s3.accessKeyId'
const REGION: Advice = (options, error) =>
  `the region is not ${options.region}${regionOf(error)}; set storage.s3.region`
const REACH: Advice = () => 'it cannot be reached; check storage.s3.endpoint'
const CLOCK: Advice = () => 'the clocks of this machine and of the store differ by too much; set this one by NTP'

/** By the code of S3, the SDK or the system. */
const ADVICE: Readonly<Record<string, Advice>> = {
  NoSuchBucket: () => 'there is no such bucket; create it, or check storage.s3.bucket',
  InvalidAccessKeyId: CREDENTIALS,
  // What versitygw says instead.
  XAdminUserNotFound: CREDENTIALS,
  CredentialsProviderError: CREDENTIALS,
  ExpiredToken: () => 'the session token has expired',
  SignatureDoesNotMatch: () => 'the secret does not belong to the access key; check storage.s3.secretAccessKey',
  RequestTimeTooSkewed: CLOCK,
  AuthorizationHeaderMalformed: REGION,
  PermanentRedirect: REGION,
  IllegalLocationConstraintException: REGION,
  ENOTFOUND: REACH,
  EAI_AGAIN: REACH,
  ECONNREFUSED: REACH,
  EHOSTUNREACH: REACH,
  ENETUNREACH: REACH,
  ECONNRESET: REACH,
  TimeoutError: REACH,
  ETIMEDOUT: REACH,
}

function regionOf(error: unknown): string {
  const region = error instanceof Error && 'Region' in error ? String(error.Region) : ''
  return region === '' ? '' : ` but ${region}`
}
