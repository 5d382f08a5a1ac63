import assert from 'node:assert/strict'
import { writeFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ConfigError, loadConfig } from '../src/config.ts'

const BUCKET = { BERTH_STORAGE_DRIVER: 's3', BERTH_STORAGE_S3_BUCKET: 'images' }

function faultsOf(env: Record<string, string>): string[] {
  try {
    loadConfig(env, '/')
  } catch (error) {
    assert.ok(error instanceof ConfigError)
    return error.faults.map(fault => fault.path)
  }
  return []
}

void test('A bucket is enough for AWS: host style, the SDK finds the credentials, 256 MiB of memory.', () => {
  const { stores, uploadMemoryBytes, s3 } = loadConfig(BUCKET, '/').storage
  assert.deepEqual(stores, ['s3'])
  assert.equal(uploadMemoryBytes, 256 * 2 ** 20)
  assert.equal(s3.pathStyle, false)
  assert.equal(s3.credentials, undefined)
  assert.equal(s3.encryption, undefined)
  assert.equal(s3.redirect, false)
})

void test('With an endpoint the bucket stands in the path, unless said otherwise.', () => {
  const env = { ...BUCKET, BERTH_STORAGE_S3_ENDPOINT: 'https://s3.example.com' }
  assert.equal(loadConfig(env, '/').storage.s3.pathStyle, true)
  assert.equal(loadConfig({ ...env, BERTH_STORAGE_S3_PATH_STYLE: 'false' }, '/').storage.s3.pathStyle, false)
})

void test('Both halves of the credentials may be files, and settings may be nested in YAML.', async t => {
  const directory = await mkdtemp(join(tmpdir(), 'berth-config-'))
  t.after(() => rm(directory, { recursive: true }))
  await writeFile(join(directory, 'id'), 'AKID\n')
  await writeFile(join(directory, 'secret'), 'hidden\n')
  await writeFile(
    join(directory, 'berth.yaml'),
    'storage:\n  driver: s3\n  s3:\n    bucket: images\n    prefix: team/\n',
  )
  const { s3 } = loadConfig(
    {
      BERTH_CONFIG: 'berth.yaml',
      BERTH_STORAGE_S3_ACCESS_KEY_ID_FILE: join(directory, 'id'),
      BERTH_STORAGE_S3_SECRET_ACCESS_KEY_FILE: join(directory, 'secret'),
    },
    directory,
  ).storage
  assert.deepEqual(s3.credentials, { accessKeyId: 'AKID', secretAccessKey: 'hidden' })
  assert.deepEqual([s3.bucket, s3.prefix], ['images', 'team/'])
})

void test('What does not go together is refused by name, and only with a bucket.', () => {
  assert.deepEqual(faultsOf({ BERTH_STORAGE_DRIVER: 's3' }), ['storage.s3.bucket'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_S3_PREFIX: 'team' }), ['storage.s3.prefix'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_S3_PREFIX: '/team/' }), ['storage.s3.prefix'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_S3_ACCESS_KEY_ID: 'AKID' }), ['storage.s3.accessKeyId'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_S3_KMS_KEY_ID: 'key' }), ['storage.s3.kmsKeyId'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_UPLOAD_MEMORY: '32MiB' }), ['storage.uploadMemory'])
  assert.deepEqual(faultsOf({ ...BUCKET, BERTH_STORAGE_S3_ENDPOINT: 'https://host/path' }), ['storage.s3.endpoint'])
  assert.deepEqual(faultsOf({ BERTH_STORAGE_UPLOAD_MEMORY: '32MiB' }), [])
})

void test('The store that is not the default is served where it is configured as well.', () => {
  const filesystem = { BERTH_STORAGE_FILESYSTEM_DIRECTORY: 'blobs' }
  const storesOf = (env: Record<string, string>): readonly string[] => loadConfig(env, '/srv').storage.stores
  assert.deepEqual(storesOf({}), ['filesystem'])
  assert.deepEqual(storesOf({ BERTH_STORAGE_S3_BUCKET: 'images' }), ['filesystem', 's3'])
  assert.deepEqual(storesOf(BUCKET), ['s3'])
  assert.deepEqual(storesOf({ ...BUCKET, ...filesystem }), ['s3', 'filesystem'])
})

void test('A directory of blobs lies in the data directory unless it is set.', () => {
  const directoryOf = (env: Record<string, string>): string => loadConfig(env, '/srv').storage.filesystem.directory
  assert.equal(directoryOf({}), '/srv/data/storage')
  assert.equal(directoryOf({ BERTH_STORAGE_FILESYSTEM_DIRECTORY: 'blobs' }), '/srv/blobs')
})

void test('A bucket beside a directory has to fit together as well.', () => {
  const env = { BERTH_STORAGE_S3_BUCKET: 'images', BERTH_STORAGE_S3_PREFIX: 'team' }
  assert.deepEqual(faultsOf(env), ['storage.s3.prefix'])
})
