import { resolve } from 'node:path'
import type { z } from 'zod'
import { checkIssuers, checkReadable, checkTogether, storesOf } from './config-checks.ts'
import { type ConfigFault, type Environment, PATHS, readEnvironment, readFile } from './config-sources.ts'
import { type MirrorConfig, type MirrorMaker, mirrorMaker, mirrorsOf, proxiesOf } from './mirror-config.ts'
import { SETTINGS, type SettingPath } from './settings.ts'
import { type SyncConfig, syncsOf } from './sync-config.ts'

type ValueOf<P extends SettingPath> = z.output<(typeof SETTINGS)[P]['schema']>

/** Another issuer of access tokens, by its keys at an address or in files. */
export interface IssuerConfig {
  readonly issuer: string
  readonly audience: string
  readonly jwksUrl: string | undefined
  readonly keyFile: string | undefined
  readonly rootCertBundle: string | undefined
}

/** Everything that can be set. Durations are in milliseconds, sizes in bytes, `data.dir` is absolute. */
export interface Config {
  readonly http: {
    readonly host: string
    readonly port: number
    readonly idleTimeoutMs: number
    readonly shutdownTimeoutMs: number
    readonly shutdownDelayMs: number
    readonly publicUrl: string | undefined
    readonly trustedProxies: readonly string[]
    readonly proxyHeaders: ValueOf<'http.proxyHeaders'>
  }
  /** Paths of PEM files; absent where plain HTTP is spoken. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined
  readonly data: { readonly dir: string }
  readonly database: {
    readonly url: string | undefined
    readonly poolSize: number
    readonly statementTimeoutMs: number
  }
  readonly log: { readonly level: ValueOf<'log.level'>; readonly format: ValueOf<'log.format'> }
  readonly auth: {
    readonly mode: ValueOf<'auth.mode'>
    readonly allowPrivateIssuers: boolean
    readonly service: string
    readonly allowPlainHttp: boolean
    readonly adminPassword: string | undefined
    readonly realm: string | undefined
    readonly issuers: readonly IssuerConfig[]
    /** Path of the file. */
    readonly htpasswd: string | undefined
    readonly tokenLifetimeMs: number
    readonly revocationMaxAgeMs: number
    readonly keyRotationMs: number
    readonly auditRetentionMs: number
    readonly guessesPerAccount: number
    readonly guessesPerAddress: number
  }
  readonly metrics: { readonly enabled: boolean; readonly host: string; readonly port: number }
  readonly registry: {
    readonly leaseMs: number
    readonly untaggedRetentionMs: number
    readonly deleteGraceMs: number
    readonly tagHistoryRetentionMs: number
    readonly uploadExpiryMs: number
    readonly trashGraceMs: number
    readonly eventRetentionMs: number
    readonly usageHistoryMs: number
    readonly manifestMaxBytes: number
    readonly tagListMax: number
    readonly requireBlobs: boolean
    readonly requireChildren: boolean
    readonly allowChildDelete: boolean
    readonly pullCountMs: number
    readonly pullsIgnoredOf: readonly string[]
  }
  readonly mirror: {
    readonly upstreams: readonly MirrorConfig[]
    readonly keepMs: number
    readonly patienceMs: number
    readonly blobMaxBytes: number
    readonly spareMs: number
    readonly make: MirrorMaker
    /** Of each upstream, in each process. */
    readonly maxFetches: number
    /** From 0 to 1. */
    readonly finishShare: number
  }
  /** Without a path; port 0 stands for the one that is listened on. */
  readonly cluster: { readonly internalUrl: string | undefined }
  readonly syncs: readonly SyncConfig[]
  readonly collection: {
    readonly batch: number
    readonly pauseMs: number
    /** Undefined: never. */
    readonly walkIntervalMs: number | undefined
  }
  readonly verification: {
    /** Undefined: only on request. */
    readonly intervalMs: number | undefined
    readonly bytesPerSecond: number
  }
  readonly storage: {
    /** The stores that are configured; the first takes new content. */
    readonly stores: readonly ValueOf<'storage.driver'>[]
    readonly uploadMemoryBytes: number
    /** 0: never. */
    readonly reconcileMs: number
    /** Absolute. */
    readonly filesystem: { readonly directory: string }
    readonly s3: {
      readonly bucket: string
      readonly prefix: string
      readonly region: string
      readonly endpoint: string | undefined
      readonly pathStyle: boolean
      readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined
      readonly encryption: 'AES256' | 'aws:kms' | undefined
      readonly kmsKeyId: string | undefined
      readonly storageClass: string | undefined
      readonly caFile: string | undefined
      readonly idleTimeoutMs: number
      readonly attempts: number
      readonly redirect: boolean
      readonly publicEndpoint: string | undefined
    }
  }
}

/** The settings cannot be used; holds every fault at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly faults: readonly ConfigFault[]

  constructor(faults: readonly ConfigFault[]) {
    super(faults.map(fault => `${fault.path}: ${fault.message}`).join('\n'))
    this.faults = faults
  }
}

/**
 * The settings: the environment's over those of the YAML file that `BERTH_CONFIG` names, over the defaults.
 * @throws ConfigError with every fault.
 */
export function loadConfig(env: Environment, cwd: string): Config {
  const faults: ConfigFault[] = []
  const given = new Map([...readFile(env, cwd, faults), ...readEnvironment(env, faults)])
  const values = new Map<SettingPath, unknown>()
  for (const path of PATHS) {
    const { schema, initial } = SETTINGS[path]
    const result = schema.safeParse(given.has(path) ? given.get(path) : initial)
    if (result.success) values.set(path, result.data)
    else {
      const where = (within: readonly PropertyKey[]): string => [path, ...within.map(String)].join('.')
      faults.push(...result.error.issues.map(issue => ({ path: where(issue.path), message: issue.message })))
    }
  }
  const get = <P extends SettingPath>(path: P): ValueOf<P> => values.get(path) as ValueOf<P>
  checkTogether(get, faults)
  for (const path of ['tls.cert', 'tls.key', 'auth.htpasswd'] as const)
    checkReadable(path, absolute(get(path), cwd), faults)
  const issuers = issuersOf(get, cwd)
  checkIssuers(issuers, get('auth.service'), faults)
  const mirrors = mirrorsOf(get('mirror.upstreams') ?? {}, env, cwd, faults)
  const syncs = syncsOf(get('sync.jobs') ?? {}, env, cwd, faults)
  if (faults.length > 0) throw new ConfigError(faults)
  return {
    http: {
      host: get('http.host'),
      port: get('http.port'),
      idleTimeoutMs: get('http.idleTimeout'),
      shutdownTimeoutMs: get('http.shutdownTimeout'),
      shutdownDelayMs: get('http.shutdownDelay'),
      publicUrl: get('http.publicUrl'),
      trustedProxies: get('http.trustedProxies') ?? [],
      proxyHeaders: get('http.proxyHeaders'),
    },
    tls: tlsFiles(get('tls.cert'), get('tls.key'), cwd),
    data: { dir: resolve(cwd, get('data.dir')) },
    database: {
      url: get('database.url'),
      poolSize: get('database.poolSize'),
      statementTimeoutMs: get('database.statementTimeout'),
    },
    log: { level: get('log.level'), format: get('log.format') },
    auth: {
      mode: get('auth.mode'),
      service: get('auth.service'),
      allowPlainHttp: get('auth.allowPlainHttp'),
      adminPassword: get('auth.adminPassword'),
      realm: get('auth.realm'),
      issuers,
      htpasswd: absolute(get('auth.htpasswd'), cwd),
      tokenLifetimeMs: get('auth.tokenLifetime'),
      revocationMaxAgeMs: get('auth.revocationMaxAge'),
      keyRotationMs: get('auth.keyRotation'),
      auditRetentionMs: get('auth.auditRetention'),
      allowPrivateIssuers: get('auth.allowPrivateIssuers'),
      guessesPerAccount: get('auth.guessesPerAccount'),
      guessesPerAddress: get('auth.guessesPerAddress'),
    },
    metrics: { enabled: get('metrics.enabled'), host: get('metrics.host'), port: get('metrics.port') },
    registry: {
      leaseMs: get('registry.lease'),
      untaggedRetentionMs: get('registry.untaggedRetention'),
      deleteGraceMs: get('registry.deleteGrace'),
      tagHistoryRetentionMs: get('registry.tagHistoryRetention'),
      uploadExpiryMs: get('registry.uploadExpiry'),
      trashGraceMs: get('registry.trashGrace'),
      eventRetentionMs: get('registry.eventRetention'),
      usageHistoryMs: get('registry.usageHistory'),
      manifestMaxBytes: get('registry.manifestMaxBytes'),
      tagListMax: get('registry.tagListMax'),
      requireBlobs: get('registry.requireBlobs'),
      requireChildren: get('registry.requireChildren'),
      allowChildDelete: get('registry.allowChildDelete'),
      pullCountMs: get('registry.pullCountInterval'),
      pullsIgnoredOf: get('registry.pullsIgnoredOf') ?? [],
    },
    mirror: {
      upstreams: mirrors,
      keepMs: get('mirror.keep'),
      patienceMs: get('mirror.patience'),
      blobMaxBytes: get('mirror.blobMaxBytes'),
      spareMs: get('mirror.spare'),
      make: mirrorMaker(proxiesOf(env, [])),
      maxFetches: get('mirror.maxFetches'),
      finishShare: get('mirror.finishPercent') / 100,
    },
    cluster: { internalUrl: get('cluster.internalUrl') },
    syncs,
    collection: {
      batch: get('collection.batch'),
      pauseMs: get('collection.pause'),
      walkIntervalMs: get('collection.walkInterval') || undefined,
    },
    verification: {
      intervalMs: get('verification.interval') || undefined,
      bytesPerSecond: get('verification.rate'),
    },
    storage: storageOf(get, resolve(cwd, get('data.dir')), cwd),
  }
}

function storageOf(
  get: <P extends SettingPath>(path: P) => ValueOf<P>,
  dataDir: string,
  cwd: string,
): Config['storage'] {
  const directory = get('storage.filesystem.directory')
  const stores = storesOf(get)
  const accessKeyId = get('storage.s3.accessKeyId')
  const secretAccessKey = get('storage.s3.secretAccessKey')
  const encryption = get('storage.s3.encryption')
  return {
    stores,
    uploadMemoryBytes: get('storage.uploadMemory') ?? (stores.includes('s3') ? 256 : 64) * 2 ** 20,
    reconcileMs: get('storage.reconcile'),
    filesystem: { directory: directory === undefined ? resolve(dataDir, 'storage') : resolve(cwd, directory) },
    s3: {
      bucket: get('storage.s3.bucket') ?? '',
      prefix: get('storage.s3.prefix'),
      region: get('storage.s3.region'),
      endpoint: get('storage.s3.endpoint'),
      pathStyle: get('storage.s3.pathStyle') ?? get('storage.s3.endpoint') !== undefined,
      credentials:
        accessKeyId === undefined || secretAccessKey === undefined ? undefined : { accessKeyId, secretAccessKey },
      encryption: encryption === 'none' ? undefined : encryption,
      kmsKeyId: get('storage.s3.kmsKeyId'),
      storageClass: get('storage.s3.storageClass'),
      caFile: get('storage.s3.caFile'),
      idleTimeoutMs: get('storage.s3.timeout'),
      attempts: get('storage.s3.attempts'),
      redirect: get('storage.s3.redirect'),
      publicEndpoint: get('storage.s3.publicEndpoint'),
    },
  }
}

function issuersOf(get: <P extends SettingPath>(path: P) => ValueOf<P>, cwd: string): readonly IssuerConfig[] {
  return (get('auth.issuers') ?? []).map(({ issuer, audience, jwksUrl, keyFile, rootCertBundle }) => ({
    issuer,
    audience: audience ?? get('auth.service'),
    jwksUrl,
    keyFile: absolute(keyFile, cwd),
    rootCertBundle: absolute(rootCertBundle, cwd),
  }))
}

function absolute(file: string | undefined, cwd: string): string | undefined {
  return file === undefined ? undefined : resolve(cwd, file)
}

function tlsFiles(cert: string | undefined, key: string | undefined, cwd: string): Config['tls'] {
  return cert === undefined || key === undefined ? undefined : { cert: resolve(cwd, cert), key: resolve(cwd, key) }
}
