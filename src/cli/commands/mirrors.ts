import { readFileSync } from 'node:fs'
import { type ApiClient, ApiRefusal, type Row } from '../api-client.ts'
import { readSecret } from '../ask.ts'
import { type Options, type Verbs, done, need, path, seconds } from '../command.ts'
import { table } from '../output.ts'
import { formatSize, parseSize } from '../sizes.ts'
import { UsageError } from '../usage-error.ts'

const SETTINGS =
  '[--username NAME] [--password-file FILE] [--allow PATTERN …] [--deny PATTERN …] [--tag-ttl 5m] [--tag-ttls TAGS=TIME …] [--namespace HOST …] [--host HOST …] [--trusted-host HOST …] [--offline yes|no] [--keep-deleted-tags yes|no] [--allow-private yes|no] [--ca FILE] [--proxy URL] [--max-size 500GB] [--bandwidth 20MB]'

/** `berth mirror …` */
export const mirrorVerbs: Verbs = {
  list: {
    usage: '',
    about: 'mirrors, and how much of what was asked of them was here',
    async run(api) {
      const rows = await api.all('/mirrors')
      const columns = ['prefix', 'url', 'source', 'state', 'hits', 'misses', 'saved', 'size', 'limit', 'left']
      return { text: table(columns, rows.map(shown)), json: rows }
    },
  },
  show: {
    usage: 'PREFIX',
    about: 'a mirror: what it did, what its upstream lets through, and the last failures',
    async run(api, [prefix]) {
      const mirror = (await api.call('GET', pathOf(prefix))) as Row
      return { text: described(mirror), json: mirror }
    },
  },
  add: {
    usage: `PREFIX --url URL ${SETTINGS} [--over-existing]`,
    about:
      'mirror a registry; every process has it within seconds. With --username the password is read from the file, or asked for.\n      --bandwidth is bytes a second, by each process. --over-existing: repositories that are there become copies',
    async run(api, [prefix], options) {
      const body = {
        prefix: need(prefix, 'PREFIX'),
        url: need(options.url, '--url'),
        ...settingsOf(options),
        ...(await loginOf(options)),
        overExisting: options['over-existing'],
      }
      const made = (await api.call('POST', '/mirrors', body)) as Row
      return done(`${String(made['url'])} is mirrored as ${String(made['prefix'])}/…`, made)
    },
  },
  change: {
    usage: `PREFIX [--url URL] ${SETTINGS} [--unset NAME …]`,
    about:
      'change a mirror that was added; lists are replaced. --unset takes back what was set, by its name in the API, such as maxBytes or login',
    async run(api, [prefix], options) {
      const unset = Object.fromEntries((options.unset ?? []).map(name => [name, null]))
      const url = options.url === undefined ? {} : { url: options.url }
      const body = { ...url, ...settingsOf(options), ...(await loginOf(options)), ...unset }
      if (Object.keys(body).length === 0) throw new UsageError('say what to change', '')
      const changed = (await api.call('PATCH', pathOf(prefix), body)) as Row
      return done(`mirror ${String(changed['prefix'])} was changed`, changed)
    },
  },
  remove: {
    usage: 'PREFIX',
    about: 'remove a mirror that was added; its repositories stay, and can be pushed to',
    async run(api, [prefix]) {
      await api.call('DELETE', pathOf(prefix))
      return done(`mirror ${prefix} was removed; its repositories are still there`)
    },
  },
  test: {
    usage: 'PREFIX [REPOSITORY]',
    about: 'ask the upstream what anybody has to get through who pulls; with a repository by its name there',
    run: async (api, [prefix, repository]) => await tested(api, need(prefix, 'PREFIX'), repository),
  },
}

function pathOf(prefix: string | undefined): string {
  return path('mirrors', ...need(prefix, 'PREFIX').split('/'))
}

async function tested(
  api: ApiClient,
  prefix: string,
  repository: string | undefined,
): ReturnType<Verbs[string]['run']> {
  const body = { prefix, ...(repository === undefined ? {} : { repository }) }
  const answer = (await api.call('POST', '/mirror-tests', body)) as Row
  const steps = answer['steps'] as readonly { readonly step: string; readonly ok: boolean; readonly message: string }[]
  const text = steps
    .map(({ step, ok, message }) => `${ok ? 'ok    ' : 'FAILED'}  ${step.padEnd(10)}  ${message}\n`)
    .join('')
  // So that scripts see it.
  if (answer['ok'] !== true) throw new ApiRefusal(`${prefix} cannot fetch:\n${text.trimEnd()}`)
  return { text, json: answer }
}

/** The settings that options give, as the API takes them. @throws UsageError */
function settingsOf(options: Options): object {
  const { 'tag-ttl': ttl, 'tag-ttls': ttls, 'max-size': max, bandwidth, ca } = options
  const given = {
    allow: options.allow,
    deny: options.deny,
    tagTtlSeconds: ttl === undefined ? undefined : seconds(ttl),
    tagTtls: ttls?.map(tagTtl),
    namespaces: options.namespace,
    hosts: options.host,
    trustedHosts: options['trusted-host'],
    offline: truth(options, 'offline'),
    keepDeletedTags: truth(options, 'keep-deleted-tags'),
    allowPrivate: truth(options, 'allow-private'),
    ca: ca === undefined ? undefined : readText(ca, '--ca'),
    proxy: options.proxy,
    maxBytes: max === undefined ? undefined : parseSize(max),
    bytesPerSecond: bandwidth === undefined ? undefined : parseSize(bandwidth),
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
}

function tagTtl(text: string): { tags: string; ttlSeconds: number } {
  const equals = text.lastIndexOf('=')
  if (equals < 1) throw new UsageError(`--tag-ttls ${text}: write TAGS=TIME, such as v*=7d`, '')
  return { tags: text.slice(0, equals), ttlSeconds: seconds(text.slice(equals + 1)) }
}

function truth(options: Options, name: 'offline' | 'keep-deleted-tags' | 'allow-private'): boolean | undefined {
  const { [name]: text } = options
  if (text === undefined || text === 'yes' || text === 'no') return text === undefined ? undefined : text === 'yes'
  throw new UsageError(`--${name} ${text}: write yes or no`, '')
}

async function loginOf({ username, 'password-file': file }: Options): Promise<object> {
  if (username === undefined) {
    if (file !== undefined) throw new UsageError('--password-file goes with --username', '')
    return {}
  }
  const password = file === undefined ? await readSecret(`password of ${username}`) : readText(file, '--password-file')
  return { login: { username, password: password.trim() } }
}

function readText(file: string, option: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError(`${option}: ${error instanceof Error ? error.message : String(error)}`, '')
  }
}

function shown(mirror: Row): Row {
  const figures = mirror['figures'] as Readonly<Record<string, number>>
  const sum = (...names: string[]): number => names.reduce((total, name) => total + (figures[name] ?? 0), 0)
  const { bytes, logicalBytes } = mirror['size'] as { readonly bytes: number | null; readonly logicalBytes: number }
  const rate = mirror['rate'] as { readonly remaining: number | null; readonly limit: number | null } | null
  return {
    ...mirror,
    state: mirror['offline'] === true ? 'offline' : mirror['leftAlone'] === null ? 'ok' : 'left alone',
    hits: sum('manifestHits', 'blobHits'),
    misses: sum('manifestMisses', 'blobMisses'),
    saved: formatSize(sum('savedBytes')),
    size: formatSize(bytes ?? logicalBytes),
    limit: mirror['maxBytes'] === null ? '-' : formatSize(Number(mirror['maxBytes'])),
    left: rate === null ? '-' : `${rate.remaining ?? '?'} of ${rate.limit ?? '?'}`,
  }
}

function described(mirror: Row): string {
  const row = shown(mirror)
  const figures = mirror['figures'] as Readonly<Record<string, unknown>>
  const size = mirror['size'] as Readonly<Record<string, unknown>>
  const failures = Object.entries(figures['failures'] as Readonly<Record<string, number>>)
  const last = mirror['lastFailures'] as readonly Row[]
  const latency = figures['meanLatencyMs']
  const count = (name: string): string => String(figures[name])
  const lines: readonly [string, string][] = [
    ['upstream', `${String(mirror['url'])}, as ${text(mirror['username'], 'nobody in particular')}`],
    ['set up', mirror['source'] === 'settings' ? 'in the settings' : 'by the API'],
    ['state', row['state'] === 'left alone' ? `left alone: ${String(mirror['leftAlone'])}` : String(row['state'])],
    ['counted since', text(figures['since'], '-')],
    ['manifests', `${count('manifestHits')} from here, ${count('manifestMisses')} fetched, ${count('stale')} stale`],
    ['blobs', `${count('blobHits')} from here, ${count('blobMisses')} fetched`],
    ['saved', `${String(row['saved'])}; the upstream sent ${formatSize(Number(figures['upstreamBytes']))}`],
    [
      'requests',
      `${count('requests')}${latency === null ? '' : `, ${Number(latency)} ms each until the answer began`}`,
    ],
    ['failures', failures.map(([kind, times]) => `${times} ${kind}`).join(', ') || 'none'],
    ['quota left', String(row['left'])],
    ['size', `${String(row['size'])} of ${String(row['limit'])} in ${String(size['repositories'])} repositories`],
    ['evicted', `${count('evicted')}, ${formatSize(Number(figures['evictedBytes']))}`],
  ]
  const lined = lines.map(([name, value]) => `${name.padEnd(14)} ${value}\n`).join('')
  return last.length === 0 ? lined : `${lined}\n${table(['at', 'kind', 'message'], last)}`
}

function text(value: unknown, without: string): string {
  return typeof value === 'string' ? value : without
}
