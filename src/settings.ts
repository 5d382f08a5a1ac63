import { BlockList, isIP } from 'node:net'
import { z } from 'zod'
import { ACCESS_SETTINGS } from './access-settings.ts'
import { upstreams } from './mirror-settings.ts'
import { STORAGE_SETTINGS } from './storage-settings.ts'
import { syncs } from './sync-settings.ts'
import {
  duration,
  EVER,
  names,
  networks,
  origin,
  port,
  type Setting,
  size,
  text,
  truth,
  whole,
} from './setting-values.ts'

/** Every setting by its path. The environment's name is `BERTH_` and the path in upper snake case. */
export const SETTINGS = {
  'http.host': { schema: text, initial: '127.0.0.1', about: 'Address to listen on.' },
  'http.port': { schema: port, initial: 5000, about: 'Port to listen on; 0 takes a free one.' },
  'http.idleTimeout': {
    schema: duration('1s', '1d'),
    initial: '2m',
    about: 'A connection on which nothing moves is closed after this.',
  },
  'http.shutdownTimeout': {
    schema: duration('0s', '1h'),
    initial: '30s',
    about: 'How long running transfers may go on after SIGTERM.',
  },
  'http.shutdownDelay': {
    schema: duration('0s', '10m'),
    initial: '0s',
    about:
      'How long requests are still accepted after SIGTERM, while /readyz answers 503 already: the time a load balancer takes to turn away.',
  },
  'http.publicUrl': {
    schema: z
      .url({ protocol: /^https?$/, error: 'must be a URL such as https://registry.example' })
      .transform(url => url.replace(/\/+$/, ''))
      .optional(),
    initial: undefined,
    about: 'The address under which clients reach the registry, where it is not the Host they send.',
  },
  'http.trustedProxies': {
    schema: networks.optional(),
    initial: undefined,
    about:
      'Addresses and networks of proxies, separated by commas, such as 10.0.0.0/8: what they say of the client (address, protocol, host) is believed.',
  },
  'http.proxyHeaders': {
    schema: z.enum(['x-forwarded', 'forwarded'], 'must be x-forwarded or forwarded'),
    initial: 'x-forwarded',
    about:
      'What these proxies say it by: X-Forwarded-*, or Forwarded (RFC 7239). The other is not read: a client could send it through.',
  },
  'tls.cert': {
    schema: text.optional(),
    initial: undefined,
    about: 'File with the certificate and its chain (PEM): the registry speaks TLS. Looked at again when it changes.',
  },
  'tls.key': { schema: text.optional(), initial: undefined, about: 'File with the private key of tls.cert (PEM).' },
  'data.dir': { schema: text, initial: './data', about: 'Where blobs and the embedded index lie.' },
  'database.url': {
    schema: text
      .regex(/^postgres(ql)?:\/\//, { error: 'must start with postgres://', abort: true })
      .refine(
        value => URL.canParse(value),
        'must be postgres://USER:PASSWORD@HOST:PORT/DATABASE, special characters percent-encoded',
      )
      .optional(),
    initial: undefined,
    about: 'Postgres (14 or newer) for the index; without it the index is embedded in the data directory.',
    secret: true,
  },
  'database.poolSize': {
    schema: whole(1, 500),
    initial: 10,
    about: 'Connections to Postgres at most.',
  },
  'database.statementTimeout': {
    schema: duration('100ms', '1h'),
    initial: '15s',
    about: 'A statement that takes longer is given up.',
  },
  'log.level': {
    schema: z.enum(
      ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
      'must be trace, debug, info, warn, error, fatal or silent',
    ),
    initial: 'info',
    about: 'Least severe level that is logged.',
  },
  'log.format': {
    schema: z.enum(['auto', 'json', 'pretty'], 'must be auto, json or pretty'),
    initial: 'auto',
    about: 'auto: pretty on a terminal, JSON otherwise.',
  },
  ...ACCESS_SETTINGS,
  'metrics.enabled': { schema: truth, initial: true, about: 'Whether /metrics is served.' },
  'metrics.host': { schema: text, initial: '127.0.0.1', about: 'Address of the metrics port.' },
  'metrics.port': {
    schema: port,
    initial: 5001,
    about: 'Port of /metrics; 0 takes a free one. One that is taken is warned of, not fatal.',
  },
  'registry.lease': {
    schema: duration('1ms', EVER),
    initial: '24h',
    about: 'How long content reported present to a pusher is kept at least (half of it is promised).',
  },
  'registry.untaggedRetention': {
    schema: duration('1ms', EVER),
    initial: '7d',
    about: 'How long content that lost its last tag stays; never below registry.lease.',
  },
  'registry.deleteGrace': {
    schema: duration('1ms', EVER),
    initial: '7d',
    about:
      'How long deleted tags, manifests and repositories can be brought back; at least 1h, and never below registry.lease.',
  },
  'registry.tagHistoryRetention': {
    schema: duration('1ms', EVER),
    initial: '90d',
    about: 'History of tags older than this is removed; never below registry.deleteGrace.',
  },
  'registry.allowShortGrace': {
    schema: truth,
    initial: false,
    about:
      'Allow registry.deleteGrace and registry.trashGrace below 1h: for trials, never with content that anybody needs.',
  },
  'registry.uploadExpiry': {
    schema: duration('1ms', EVER),
    initial: '24h',
    about: 'An upload session nobody writes to ends after this.',
  },
  'registry.trashGrace': {
    schema: duration('1ms', EVER),
    initial: '7d',
    about:
      'How long bytes that nothing names stay before they are deleted; at least 1h, and longer than the longest download and the time between backups.',
  },
  'registry.eventRetention': {
    schema: duration('1ms', EVER),
    initial: '7d',
    about: 'Events older than this are removed.',
  },
  'registry.usageHistory': {
    schema: duration('1d', EVER),
    initial: '400d',
    about: 'For how long daily figures of what each repository uses are kept, in whole days.',
  },
  'registry.manifestMaxBytes': {
    schema: size('4MiB', '64MiB'),
    initial: '8MiB',
    about: 'Largest manifest accepted; clients push manifests of up to 4MiB.',
  },
  'registry.tagListMax': {
    schema: whole(100, 100_000),
    initial: 10_000,
    about: 'Tags in one page of a list at most.',
  },
  'registry.requireBlobs': {
    schema: truth,
    initial: true,
    about: 'Refuse an image that names a config or layer which is not there (foreign layers excepted).',
  },
  'registry.requireChildren': {
    schema: truth,
    initial: false,
    about: 'Refuse an index that names a manifest which is not there.',
  },
  'registry.allowChildDelete': {
    schema: truth,
    initial: false,
    about: 'Allow deleting a manifest that an index names.',
  },
  'registry.pullCountInterval': {
    schema: duration('100ms', '1h'),
    initial: '10s',
    about: 'How often counted pulls are written; a process that dies loses what it counted since.',
  },
  'registry.pullsIgnoredOf': {
    schema: names.optional(),
    initial: undefined,
    about:
      'Users, robots and CI identities, separated by commas, whose pulls are not counted, such as a scanner: robot+scanner.',
  },
  'mirror.upstreams': {
    schema: upstreams.optional(),
    initial: undefined,
    about:
      'Registries to mirror, by the prefix of the repositories that hold the copies; [mirror.md](mirror.md) has their settings. From the environment as JSON.',
  },
  'mirror.keep': {
    schema: duration('1h', EVER),
    initial: '30d',
    about: 'How long copies stay that nobody asks for: at most, and at least half as long.',
  },
  'mirror.patience': {
    schema: duration('10ms', '30s'),
    initial: '2s',
    about: 'How long an upstream is waited for where there is an older copy of the tag to give.',
  },
  'mirror.spare': {
    schema: duration('0s', EVER),
    initial: '15m',
    about: 'Copies that were asked for within this time are not evicted where a mirror has a size (maxBytes).',
  },
  'mirror.blobMaxBytes': {
    schema: size('1MiB', '1024GiB'),
    initial: '100GiB',
    about: 'Largest blob fetched from an upstream.',
  },
  'mirror.maxFetches': {
    schema: whole(1, 10_000),
    initial: 64,
    about:
      'Blobs that one process fetches from one upstream at a time; further ones wait in order, up to 30 s, then 503.',
  },
  'mirror.finishPercent': {
    schema: whole(0, 100),
    initial: 50,
    about:
      'A blob that nobody waits for any more is fetched to its end where this much of it has come, in percent; else it is let go.',
  },
  'cluster.internalUrl': {
    schema: origin.transform(url => url.replace(/\/$/, '')).optional(),
    initial: undefined,
    about:
      'The address under which the other processes of this registry reach this one, such as http://10.0.0.7:5000; port 0 stands for the one it listens on. [mirror.md](mirror.md) says what for.',
  },
  'sync.jobs': {
    schema: syncs.optional(),
    initial: undefined,
    about: 'Syncs with other registries, by name; [sync.md](sync.md) has their settings. From the environment as JSON.',
  },
  'collection.batch': {
    schema: whole(1, 10_000),
    initial: 200,
    about: 'Rows, or stored blobs, that the collector takes at a time. Rows are locked for as long as one batch takes.',
  },
  'collection.pause': {
    schema: duration('0s', '1h'),
    initial: '50ms',
    about: 'How long the collector rests between batches, so that it takes nothing from pulls and pushes.',
  },
  'collection.walkInterval': {
    schema: duration('0s', EVER),
    initial: '7d',
    about: 'How often a slow walk over the whole index makes sure that the collector misses nothing; 0s: never.',
  },
  'verification.interval': {
    schema: duration('0s', EVER),
    initial: '30d',
    about: 'How often all stored bytes are read again and compared with their digests; 0s: only by berth verify.',
  },
  'verification.rate': {
    schema: size('64KiB', '1024GiB'),
    initial: '16MiB',
    about: 'How much a verification reads in a second at most.',
  },
  ...STORAGE_SETTINGS,
} as const satisfies Record<string, Setting>

/** A path of {@link SETTINGS}. */
export type SettingPath = keyof typeof SETTINGS

/** The environment's name of a setting: `http.idleTimeout` is `BERTH_HTTP_IDLE_TIMEOUT`. */
export function variableOf(path: string): string {
  return `BERTH_${path.replaceAll('.', '_').replaceAll(/([a-z])([A-Z])/g, '$1_$2')}`.toUpperCase()
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** Whether an address can only be reached from this machine; of host names, only `localhost`. */
export function isLoopback(host: string): boolean {
  const family = isIP(host)
  return family === 0 ? host === 'localhost' : LOOPBACK.check(host, family === 4 ? 'ipv4' : 'ipv6')
}
