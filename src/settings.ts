import { isIPv4, isIPv6 } from 'node:net'
import { z } from 'zod'

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }

function quantity(units: Readonly<Record<string, number>>, valid: string) {
  return z.union([z.number(), z.string()]).transform((value, context) => {
    const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(String(value).trim())
    const unit = match?.[2] === '' ? 1 : units[match?.[2] ?? '']
    if (match === null || unit === undefined) {
      context.addIssue({ code: 'custom', message: valid })
      return z.NEVER
    }
    return Math.round(Number(match[1]) * unit)
  })
}

const duration = quantity(DURATION_UNITS, 'must be a duration such as 500ms, 30s, 10m, 24h or 7d')
const size = quantity(SIZE_UNITS, 'must be a size such as 64MiB or a number of bytes')
const port = z.coerce
  .number('must be a port number')
  .int()
  .min(0, 'must be 0 to 65535')
  .max(65_535, 'must be 0 to 65535')
const truth = z.union(
  [z.boolean(), z.enum(['true', 'false']).transform(text => text === 'true')],
  'must be true or false',
)
const text = z.string('must be text')

/** A setting: how it is read, what it is without being set, and what a person is told about it. */
interface Setting {
  readonly schema: z.ZodType
  readonly initial: string | number | boolean | undefined
  readonly about: string
  /** May be given as a file by the name with `_FILE`. */
  readonly secret?: boolean
}

/** Every setting by its path. The environment's name is `BERTH_` and the path in upper snake case. */
export const SETTINGS = {
  'http.host': { schema: text, initial: '127.0.0.1', about: 'Address to listen on.' },
  'http.port': { schema: port, initial: 5000, about: 'Port to listen on; 0 takes a free one.' },
  'http.idleTimeout': {
    schema: duration,
    initial: '2m',
    about: 'A connection on which nothing moves is closed after this.',
  },
  'http.shutdownTimeout': {
    schema: duration,
    initial: '30s',
    about: 'How long running transfers may go on after SIGTERM.',
  },
  'data.dir': { schema: text, initial: './data', about: 'Where blobs and the embedded index lie.' },
  'database.url': {
    schema: text.regex(/^postgres(ql)?:\/\//, 'must start with postgres://').optional(),
    initial: undefined,
    about: 'Postgres (14 or newer) for the index; without it the index is embedded in the data directory.',
    secret: true,
  },
  'database.poolSize': {
    schema: z.coerce.number('must be a number').int().min(1).max(500),
    initial: 10,
    about: 'Connections to Postgres at most.',
  },
  'database.statementTimeout': {
    schema: duration,
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
  'auth.mode': {
    schema: z.enum(['open'], 'must be open').optional(),
    initial: undefined,
    about: 'open: whoever reaches the port may pull, push and delete. Needed to listen beyond loopback.',
  },
  'metrics.enabled': { schema: truth, initial: true, about: 'Whether /metrics is served.' },
  'metrics.host': { schema: text, initial: '127.0.0.1', about: 'Address of the metrics port.' },
  'metrics.port': { schema: port, initial: 5001, about: 'Port of /metrics; 0 takes a free one.' },
  'registry.lease': {
    schema: duration,
    initial: '24h',
    about: 'How long content reported present to a pusher is kept at least (half of it is promised).',
  },
  'registry.untaggedRetention': {
    schema: duration,
    initial: '7d',
    about: 'How long content that lost its last tag stays; never below registry.lease.',
  },
  'registry.uploadExpiry': {
    schema: duration,
    initial: '24h',
    about: 'An upload session nobody writes to ends after this.',
  },
  'registry.trashGrace': {
    schema: duration,
    initial: '7d',
    about: 'How long bytes that nothing names stay before they are deleted.',
  },
  'registry.eventRetention': { schema: duration, initial: '7d', about: 'Events older than this are removed.' },
  'registry.manifestMaxBytes': { schema: size, initial: '8MiB', about: 'Largest manifest accepted; at least 4MiB.' },
  'registry.tagListMax': {
    schema: z.coerce.number('must be a number').int().min(100).max(100_000),
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
  'storage.uploadMemory': { schema: size, initial: '64MiB', about: 'Memory of all transfer buffers together.' },
} as const satisfies Record<string, Setting>

/** A path of {@link SETTINGS}. */
export type SettingPath = keyof typeof SETTINGS

/** The environment's name of a setting: `http.idleTimeout` is `BERTH_HTTP_IDLE_TIMEOUT`. */
export function variableOf(path: string): string {
  return `BERTH_${path.replaceAll('.', '_').replaceAll(/([a-z])([A-Z])/g, '$1_$2')}`.toUpperCase()
}

/** Whether an address can only be reached from this machine. */
export function isLoopback(host: string): boolean {
  return (
    host === 'localhost' ||
    host === '::1' ||
    (isIPv4(host) && host.startsWith('127.')) ||
    (isIPv6(host) && host === '0:0:0:0:0:0:0:1')
  )
}
