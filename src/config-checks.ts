import { accessSync, constants } from 'node:fs'
import type { z } from 'zod'
import { type ConfigFault, firstLine } from './config-sources.ts'
import { type SETTINGS, type SettingPath, isLoopback } from './settings.ts'

/** What a setting is, once read; undefined where it is not set, or wrong by itself. */
type Given = <P extends SettingPath>(path: P) => z.output<(typeof SETTINGS)[P]['schema']> | undefined

/** What is checked of an issuer of tokens. */
interface CheckedIssuer {
  readonly issuer: string
  readonly keyFile: string | undefined
  readonly rootCertBundle: string | undefined
}

const MIN_S3_MEMORY_BYTES = 64 * 2 ** 20

/** Adds to `faults` what single settings allow and all of them together do not. */
export function checkTogether(get: Given, faults: ConfigFault[]): void {
  const host = get('http.host')
  if (host !== undefined && !isLoopback(host) && get('auth.mode') === undefined) {
    faults.push({
      path: 'http.host',
      message: `${host} can be reached from other machines and nobody has to log in: set BERTH_AUTH_MODE=token to require logins, or say that everybody may do everything with BERTH_AUTH_MODE=open`,
    })
  }
  for (const path of ['auth.htpasswd', 'auth.issuers', 'auth.realm'] as const) {
    if (get(path) !== undefined && get('auth.mode') !== 'token') {
      faults.push({ path, message: 'needs auth.mode=token: as it is, nobody has to log in' })
    }
  }
  if ((get('tls.cert') === undefined) !== (get('tls.key') === undefined)) {
    const missing = get('tls.cert') === undefined ? 'tls.cert' : 'tls.key'
    faults.push({ path: missing, message: 'is missing: tls.cert and tls.key go together' })
  }
  if (get('http.port') === get('metrics.port') && get('http.port') !== 0 && get('metrics.enabled') === true) {
    faults.push({ path: 'metrics.port', message: 'is the port of http.port: give it another, or 0 for a free one' })
  }
  const lease = get('registry.lease')
  const retention = get('registry.untaggedRetention')
  if (lease !== undefined && retention !== undefined && retention < lease) {
    faults.push({ path: 'registry.untaggedRetention', message: 'must not be below registry.lease' })
  }
  checkGraces(get, faults)
  if (storesOf(get).includes('s3')) checkS3(get, faults)
}

const MIN_GRACE_MS = 3_600_000

function checkGraces(get: Given, faults: ConfigFault[]): void {
  const grace = get('registry.deleteGrace')
  if (grace !== undefined && grace < (get('registry.lease') ?? 0)) {
    faults.push({ path: 'registry.deleteGrace', message: 'must not be below registry.lease' })
  }
  if (grace !== undefined && (get('registry.tagHistoryRetention') ?? Infinity) < grace) {
    faults.push({ path: 'registry.tagHistoryRetention', message: 'must not be below registry.deleteGrace' })
  }
  if (get('registry.allowShortGrace') === true) return
  for (const path of ['registry.deleteGrace', 'registry.trashGrace'] as const) {
    if ((get(path) ?? Infinity) >= MIN_GRACE_MS) continue
    faults.push({ path, message: 'must not be below 1h, unless registry.allowShortGrace is set for a trial' })
  }
}

function checkS3(get: Given, faults: ConfigFault[]): void {
  if (!get('storage.s3.bucket')) faults.push({ path: 'storage.s3.bucket', message: 'must be set with driver s3' })
  if (!/^(?:$|[^/].*\/$)/.test(get('storage.s3.prefix') ?? '')) {
    faults.push({ path: 'storage.s3.prefix', message: 'must be empty, or end with / and not begin with it' })
  }
  if ((get('storage.s3.accessKeyId') === undefined) !== (get('storage.s3.secretAccessKey') === undefined)) {
    faults.push({
      path: 'storage.s3.accessKeyId',
      message: 'set it together with storage.s3.secretAccessKey, or neither',
    })
  }
  if (get('storage.s3.kmsKeyId') !== undefined && get('storage.s3.encryption') !== 'aws:kms') {
    faults.push({ path: 'storage.s3.kmsKeyId', message: 'needs storage.s3.encryption=aws:kms' })
  }
  if ((get('storage.uploadMemory') ?? Infinity) < MIN_S3_MEMORY_BYTES) {
    faults.push({ path: 'storage.uploadMemory', message: 'must be 64MiB or more with s3' })
  }
}

/** Adds to `faults` what is wrong with issuers, whose paths are absolute. */
export function checkIssuers(issuers: readonly CheckedIssuer[], service: string, faults: ConfigFault[]): void {
  for (const [index, { issuer, keyFile, rootCertBundle }] of issuers.entries()) {
    const path = `auth.issuers.${index}`
    if (issuer === service) {
      faults.push({ path: `${path}.issuer`, message: 'is auth.service, which is what this registry’s own tokens say' })
    }
    if (issuers.findIndex(other => other.issuer === issuer) < index) {
      faults.push({ path: `${path}.issuer`, message: `${issuer} stands there twice` })
    }
    checkReadable(`${path}.keyFile`, keyFile, faults)
    checkReadable(`${path}.rootCertBundle`, rootCertBundle, faults)
  }
}

/** The driver's store, and the other one where it is configured: what a start after a change of driver has to serve. */
export function storesOf(get: Given): readonly ('filesystem' | 's3')[] {
  if (get('storage.driver') === 's3') {
    return get('storage.filesystem.directory') === undefined ? ['s3'] : ['s3', 'filesystem']
  }
  return get('storage.s3.bucket') === undefined ? ['filesystem'] : ['filesystem', 's3']
}

/** Adds to `faults` that a file at an absolute path cannot be read. */
export function checkReadable(path: string, file: string | undefined, faults: ConfigFault[]): void {
  if (file === undefined) return
  try {
    accessSync(file, constants.R_OK)
  } catch (error) {
    faults.push({ path, message: `cannot be read: ${firstLine(error)}` })
  }
}
