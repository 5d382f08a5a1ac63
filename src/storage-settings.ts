import { z } from 'zod'
import { duration, origin, type Setting, size, text, truth } from './setting-values.ts'

/** Where bytes lie. */
export const STORAGE_SETTINGS = {
  'storage.driver': {
    schema: z.enum(['filesystem', 's3'], 'must be filesystem or s3'),
    initial: 'filesystem',
    about:
      'Where new bytes go: into a directory or into a bucket. What lies in the other one is served from there while that one is configured as well.',
  },
  'storage.uploadMemory': {
    schema: size('4MiB', '16GiB').optional(),
    initial: undefined,
    about:
      'Memory of all transfer buffers together; without it 64MiB, or 256MiB with s3 (where 64MiB is the least). A directory beside a bucket has up to 64MiB of its own.',
  },
  'storage.reconcile': {
    schema: duration('0s', '24d'),
    initial: '0s',
    about:
      'How often to list the store and remove what is older than registry.uploadExpiry + registry.trashGrace and in no row; 0s: never. Only where nothing else, also no copy of this registry, keeps blobs in the same place.',
  },
  'storage.filesystem.directory': {
    schema: text.optional(),
    initial: undefined,
    about:
      'The directory of blobs; with driver filesystem `storage` in data.dir unless set. Set beside driver s3, it is served as well.',
  },
  'storage.s3.bucket': {
    schema: text.optional(),
    initial: undefined,
    about: 'The bucket. It must exist. Set beside driver filesystem, it is served as well.',
  },
  'storage.s3.prefix': {
    schema: z.string('must be text'),
    initial: '',
    about: 'What the name of every object begins with, such as `registry/`. Nothing else may write there.',
  },
  'storage.s3.region': { schema: text, initial: 'us-east-1', about: 'The region of the bucket.' },
  'storage.s3.endpoint': {
    schema: origin.optional(),
    initial: undefined,
    about: 'Address of the S3 server, such as `https://s3.example.com`; without it AWS.',
  },
  'storage.s3.pathStyle': {
    schema: truth.optional(),
    initial: undefined,
    about:
      'Whether the bucket stands in the path (true) or in the host name; without it true where an endpoint is set.',
  },
  'storage.s3.accessKeyId': {
    schema: text.optional(),
    initial: undefined,
    about:
      'Access key; without it the default chain of the AWS SDK (environment, files, web identity, container, instance).',
    secret: true,
  },
  'storage.s3.secretAccessKey': { schema: text.optional(), initial: undefined, about: 'Its secret.', secret: true },
  'storage.s3.encryption': {
    schema: z.enum(['none', 'AES256', 'aws:kms'], 'must be none, AES256 or aws:kms'),
    initial: 'none',
    about: 'Encryption by the store that objects ask for: SSE-S3 (AES256) or SSE-KMS.',
  },
  'storage.s3.kmsKeyId': {
    schema: text.optional(),
    initial: undefined,
    about: 'The key for aws:kms, if not the default one.',
  },
  'storage.s3.storageClass': {
    schema: text.optional(),
    initial: undefined,
    about: 'Storage class of objects; it must be readable at once.',
  },
  'storage.s3.caFile': {
    schema: text.optional(),
    initial: undefined,
    about: 'A PEM file of authorities to trust besides those of the system.',
  },
  'storage.s3.timeout': {
    schema: duration('1s', '5m'),
    initial: '20s',
    about: 'A request on whose connection nothing moves for this long has failed. Connecting may take 5 s.',
  },
  'storage.s3.attempts': {
    schema: z.coerce.number('must be a number').int().min(1).max(10),
    initial: 4,
    about: 'How often a request is tried in all, with growing pauses.',
  },
  'storage.s3.redirect': {
    schema: truth,
    initial: false,
    about: 'Whether clients fetch blobs from the store itself, by a redirect to a presigned URL.',
  },
  'storage.s3.publicEndpoint': {
    schema: origin.optional(),
    initial: undefined,
    about: 'Where clients reach the store, if not at the endpoint; for redirects.',
  },
} as const satisfies Record<string, Setting>
