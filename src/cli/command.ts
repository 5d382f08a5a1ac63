import type { parseArgs } from 'node:util'
import type { ApiClient, Row } from './api-client.ts'
import { UsageError } from './usage-error.ts'

/** Every option that some command of administration takes. */
export const OPTIONS = {
  server: { type: 'string' },
  login: { type: 'string' },
  'token-file': { type: 'string' },
  json: { type: 'boolean', default: false },
  user: { type: 'string' },
  grant: { type: 'string', multiple: true },
  scope: { type: 'string', multiple: true },
  claim: { type: 'string', multiple: true },
  issuer: { type: 'string' },
  audience: { type: 'string' },
  session: { type: 'string' },
  'single-use': { type: 'boolean', default: false },
  'allow-pull-request-target': { type: 'boolean', default: false },
  expires: { type: 'string' },
  overlap: { type: 'string' },
  distrust: { type: 'boolean', default: false },
  current: { type: 'boolean', default: false },
  group: { type: 'string' },
  limit: { type: 'string' },
  days: { type: 'string' },
  total: { type: 'boolean', default: false },
  physical: { type: 'boolean', default: false },
  generate: { type: 'boolean', default: false },
  actor: { type: 'string' },
  kind: { type: 'string' },
  deleted: { type: 'boolean', default: false },
  force: { type: 'boolean', default: false },
  id: { type: 'string' },
  to: { type: 'string' },
  steps: { type: 'string' },
  name: { type: 'string' },
  tags: { type: 'string' },
  immutable: { type: 'boolean', default: false },
  protected: { type: 'boolean', default: false },
  'may-expire': { type: 'boolean', default: false },
  writer: { type: 'string', multiple: true },
  'at-once': { type: 'string' },
  rate: { type: 'string' },
  'dry-run': { type: 'boolean', default: false },
  detach: { type: 'boolean', default: false },
  repositories: { type: 'string' },
  tag: { type: 'string', multiple: true },
  keep: { type: 'string', multiple: true },
  untagged: { type: 'boolean', default: false },
  'max-share': { type: 'string' },
  schedule: { type: 'string' },
  'time-zone': { type: 'string' },
  policy: { type: 'string' },
  yes: { type: 'boolean', default: false },
  all: { type: 'boolean', default: false },
  status: { type: 'boolean', default: false },
  damaged: { type: 'boolean', default: false },
  url: { type: 'string' },
  username: { type: 'string' },
  'password-file': { type: 'string' },
  allow: { type: 'string', multiple: true },
  deny: { type: 'string', multiple: true },
  'tag-ttl': { type: 'string' },
  'tag-ttls': { type: 'string', multiple: true },
  namespace: { type: 'string', multiple: true },
  host: { type: 'string', multiple: true },
  'trusted-host': { type: 'string', multiple: true },
  offline: { type: 'string' },
  'keep-deleted-tags': { type: 'string' },
  'allow-private': { type: 'string' },
  ca: { type: 'string' },
  proxy: { type: 'string' },
  'max-size': { type: 'string' },
  bandwidth: { type: 'string' },
  'over-existing': { type: 'boolean', default: false },
  unset: { type: 'string', multiple: true },
  help: { type: 'boolean', short: 'h', default: false },
} as const

/** The options as given. */
export type Options = ReturnType<typeof parseArgs<{ options: typeof OPTIONS; allowPositionals: true }>>['values']

/** One command of administration: what is typed after its noun and verb, and what it does. */
export interface Command {
  readonly usage: string
  readonly about: string
  readonly run: (api: ApiClient, args: readonly string[], options: Options) => Promise<Result>
}

/** Options that every command takes. */
const COMMON = new Set(['server', 'login', 'token-file', 'json', 'help'])

/** What is wrong with the words and options of a command line, going by the command's usage; or undefined. */
export function usageFault(
  { usage }: Command,
  words: readonly string[],
  options: readonly string[],
): string | undefined {
  const parts = usage.split(' ')
  const firstOption = parts.findIndex(part => !/^(?:[A-Z]+|\[[A-Z]+\])$/.test(part))
  const wanted = firstOption < 0 ? parts : parts.slice(0, firstOption)
  const missing = wanted[words.length]
  if (missing?.startsWith('[') === false) return `${missing} is missing`
  const extra = words[wanted.length]
  if (extra !== undefined) return `${extra} is a word too many`
  const known = new Set([...usage.matchAll(/--([a-z-]+)/g)].map(match => match[1]))
  const strange = options.find(option => !COMMON.has(option) && !known.has(option))
  return strange === undefined ? undefined : `--${strange} means nothing here`
}

/** What a command prints: a table, or some lines; and the same as JSON. */
export type Result =
  | { readonly rows: readonly Row[]; readonly columns: readonly string[] }
  | { readonly text: string; readonly json: unknown }

/** A command's words at its end, and what `--json` prints instead. */
export const done = (text: string, json: unknown = {}): Result => ({ text: `${text}\n`, json })

/** A path of the API, its parts encoded. */
export function path(...parts: readonly string[]): string {
  return `/${parts.map(encodeURIComponent).join('/')}`
}

/** A pattern with actions, written as `pull,push:team-a/web`. @throws UsageError */
export function patternActions(text: string): { pattern: string; actions: string[] } {
  const colon = text.indexOf(':')
  if (colon < 0) throw new UsageError(`${text}: write ACTIONS:PATTERN, such as pull,push:team-a/**`)
  return { pattern: text.slice(colon + 1), actions: text.slice(0, colon).split(',') }
}

/** A claim with its value, written as `ref=refs/heads/main`; `true` and `false` are truth values unless quoted. @throws UsageError */
export function claim(text: string): [string, string | number | boolean] {
  const equals = text.indexOf('=')
  if (equals < 0) throw new UsageError(`${text}: write CLAIM=VALUE`)
  const value = text.slice(equals + 1)
  const name = text.slice(0, equals)
  if (/^".*"$/.test(value)) return [name, value.slice(1, -1)]
  if (value === 'true' || value === 'false') return [name, value === 'true']
  return [name, value]
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 }

/** Seconds in a duration such as `90d`. @throws UsageError */
export function seconds(text: string): number {
  const match = /^(\d+)([smhd])$/.exec(text)
  if (match === null) throw new UsageError(`${text}: write a duration such as 30m, 12h or 90d`)
  return Number(match[1]) * (UNITS[match[2] ?? ''] ?? 1)
}

/** When something ends, by `--expires`. */
export function expiry(options: Options): { expiresAt?: string } {
  if (options.expires === undefined) return {}
  return { expiresAt: new Date(Date.now() + seconds(options.expires) * 1000).toISOString() }
}

/** How long a former secret stays good, by `--overlap`. */
export function overlap(options: Options): { overlapSeconds?: number } {
  return options.overlap === undefined ? {} : { overlapSeconds: seconds(options.overlap) }
}

/** An argument that must be there. @throws UsageError */
export function need(value: string | undefined, what: string): string {
  if (value === undefined) throw new UsageError(`${what} is missing`)
  return value
}

/** A repository with a tag or digest, written as `team-a/web:v1` or `team-a/web@sha256:…`, as clients write it. */
export function reference(text: string): { repository: string; reference?: string } {
  const at = text.indexOf('@')
  const end = at < 0 ? text.indexOf(':') : at
  return end < 0 ? { repository: text } : { repository: text.slice(0, end), reference: text.slice(end + 1) }
}

/** A repository with a tag. @throws UsageError */
export function tagged(text: string): { repository: string; tag: string } {
  const { repository, reference: tag } = reference(text)
  if (tag === undefined || text.includes('@')) throw new UsageError(`${text}: write REPOSITORY:TAG`)
  return { repository, tag }
}

/** A whole number. @throws UsageError */
export function whole(text: string, what: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`${what} ${text}: write a number`)
  return Number(text)
}

/** To whom is granted, as people write it. */
export function subject(text: string): { readonly kind: string; readonly name?: string } {
  if (text === 'everyone') return { kind: 'anonymous' }
  if (text === 'everyone-logged-in') return { kind: 'authenticated' }
  return text.startsWith('group:') ? { kind: 'group', name: text.slice(6) } : { kind: 'principal', name: text }
}

/** Whose token, by `--user`. */
export function userOf(options: Options): { user?: string } {
  return options.user === undefined ? {} : { user: options.user }
}

/** The verbs of a noun. */
export type Verbs = Readonly<Record<string, Command>>

/** What a list of principals shows. */
export const PRINCIPAL_COLUMNS = ['name', 'active', 'expiresAt', 'lastUsedAt', 'createdAt', 'createdBy']
