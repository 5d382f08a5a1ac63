import { readFileSync } from 'node:fs'
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { Readable } from 'node:stream'
import { getCACertificates } from 'node:tls'
import { S3Client } from '@aws-sdk/client-s3'
import { BlobMissing, BodyAborted, ContentTooLarge, StoreUnavailable, WriteLost } from './blob-store.ts'

const CONNECT_TIMEOUT_MS = 5_000
/** Every transfer that runs may have a connection; requests, not this, are what bounds them. */
const MOST_SOCKETS = 4096
const SLICE_BYTES = 256 * 1024

/** How to reach a bucket. */
export interface S3Options {
  readonly bucket: string
  /** What the name of every object begins with; empty, or as it stands, with its slash. */
  readonly prefix: string
  readonly region: string
  /** `https://host[:port]`; without it, AWS in `region`. */
  readonly endpoint?: string | undefined
  /** Whether the bucket is the first part of the path and not of the host name. */
  readonly pathStyle: boolean
  /** Without it, the SDK's default chain: environment, shared files, web identity, container, instance. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined
  readonly encryption?: 'AES256' | 'aws:kms' | undefined
  readonly kmsKeyId?: string | undefined
  readonly storageClass?: string | undefined
  /** A PEM file of further authorities to trust. */
  readonly caFile?: string | undefined
  /** A request on whose connection nothing moves for this long has failed. */
  readonly idleTimeoutMs: number
  /** How often a request is tried in all. */
  readonly attempts: number
  /** Where clients reach the store, if not at `endpoint`; for presigned URLs only. */
  readonly publicEndpoint?: string | undefined
}

/** A client with our limits. Connects when it is first used. @throws Error when `caFile` cannot be read. */
export function createClient(options: S3Options, endpoint = options.endpoint): S3Client {
  const agent = { keepAlive: true, maxSockets: MOST_SOCKETS }
  const ca =
    options.caFile === undefined ? undefined : [...getCACertificates('default'), readCertificates(options.caFile)]
  const client = new S3Client({
    region: options.region,
    forcePathStyle: options.pathStyle,
    maxAttempts: options.attempts,
    // The newer default checksums are refused or garbled by many servers; see docs/storage.md for what guards the bytes.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      socketTimeout: options.idleTimeoutMs,
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent(ca === undefined ? agent : { ...agent, ca }),
    },
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
  })
  // TLS guards the bytes already; without it they are signed, so that the server refuses any that changed on the way.
  client.middlewareStack.add(
    next => async args => {
      const request = args.request as { protocol?: string; headers?: Record<string, string> }
      if (request.protocol === 'https:' && request.headers !== undefined) {
        request.headers['x-amz-content-sha256'] ??= 'UNSIGNED-PAYLOAD'
      }
      return await next(args)
    },
    { step: 'build', name: 'unsignedPayloadOverTls', priority: 'low' },
  )
  client.middlewareStack.add(
    next => async args => await next({ ...args, request: inSlices(args.request) }),
    // After the retries and the signature, so that every attempt has a body of its own.
    { step: 'deserialize', name: 'bodyInSlices', priority: 'low' },
  )
  return client
}

/**
 * Over TLS, a body that is sent as the connection takes it: written as a whole it would be encrypted at once, and lie in
 * memory twice, the second time outside of any budget. Without TLS it is sent from where it lies.
 */
function inSlices<T>(request: T): T {
  const { protocol, body } = request as { protocol?: string; body?: unknown }
  if (protocol !== 'https:' || !(body instanceof Uint8Array) || body.byteLength <= SLICE_BYTES) return request
  return Object.assign(Object.create(Object.getPrototypeOf(request) as object) as object, request, {
    body: Readable.from(slicesOf(body), { objectMode: false, highWaterMark: 0 }),
  }) as T
}

function* slicesOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += SLICE_BYTES) yield bytes.subarray(at, at + SLICE_BYTES)
}

function readCertificates(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new Error(`The authorities in ${file} cannot be read`, { cause: error })
  }
}

/** What S3 calls an error (`NoSuchKey`), or the system (`ECONNREFUSED`). */
export function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return 'Unknown'
  if ('code' in error && typeof error.code === 'string') return error.code
  return error.name
}

/** Status of the response that said so, if there was one. */
export function statusOf(error: unknown): number | undefined {
  const metadata = error instanceof Error && '$metadata' in error ? error.$metadata : undefined
  return (metadata as { httpStatusCode?: number } | undefined)?.httpStatusCode
}

const OURS = [BlobMissing, BodyAborted, ContentTooLarge, StoreUnavailable, WriteLost]

/** The contract's own errors as they are; what a server, the network or the credentials refuse as StoreUnavailable. */
export function translated(error: unknown, operation: string): unknown {
  if (!(error instanceof Error) || OURS.some(kind => error instanceof kind)) return error
  const fromServer = statusOf(error) !== undefined
  const fromSystem = 'code' in error && typeof error.code === 'string'
  const fromSdk = /^(?:TimeoutError|AbortError|CredentialsProviderError|TokenProviderError|ProviderError)$/.test(
    error.name,
  )
  if (!fromServer && !fromSystem && !fromSdk) return error
  return new StoreUnavailable(`S3 answered ${codeOf(error)} to ${operation}`, { cause: error })
}
