import { IndexUnusable, sqlState } from '../metadata/database.ts'

/** What to do about a fault of the operating system, by its code. */
const SYSTEM: Readonly<Record<string, (place: string) => string>> = {
  EADDRINUSE: place => `${place} is in use: stop what listens there, or set BERTH_HTTP_PORT to another port`,
  EADDRNOTAVAIL: place => `${place} is no address of this machine: set BERTH_HTTP_HOST`,
  ENOTFOUND: place => `${place} is not known to the resolver`,
  EROFS: place => `${place} cannot be written to (read-only file system): set BERTH_DATA_DIR to another directory`,
  ENOSPC: place => `${place} cannot be written to: the disk is full`,
  ENOTDIR: place => `${place} is not a directory: set BERTH_DATA_DIR to another one`,
  EEXIST: place => `${place} is not a directory: set BERTH_DATA_DIR to another one`,
}

/** What to do about a refusal of Postgres, by its SQLSTATE. */
const POSTGRES: Readonly<Record<string, string>> = {
  '28P01': 'Postgres refuses the user or the password: check BERTH_DATABASE_URL',
  '28000': 'Postgres refuses the user: check BERTH_DATABASE_URL and the server’s pg_hba.conf',
  '3D000': 'the database does not exist: create it, or name another one in BERTH_DATABASE_URL',
  '42501': 'the Postgres user may not create tables: make it the owner of the database BERTH_DATABASE_URL names',
  '53300': 'Postgres has no connection left: raise its max_connections, or set BERTH_DATABASE_POOL_SIZE lower',
}

/** One line that says why the program could not start and what to do; of what is not foreseen, everything known. */
export function describeFault(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error instanceof IndexUnusable) return error.message
  const chain = causes(error)
  for (const { code } of chain) if (code !== undefined && code in POSTGRES) return POSTGRES[code] ?? ''
  if (error.name === 'DatabaseUnavailable') {
    const reason = chain.findLast(({ message }) => message !== '')?.message ?? error.message
    return `the index cannot be reached (${reason}): check that Postgres runs and what BERTH_DATABASE_URL names`
  }
  for (const { code, path, port, address } of chain) {
    const place = path ?? (port === undefined ? address : `${address ?? ''}:${port}`) ?? 'the address'
    if (code === 'EACCES' || code === 'EPERM') return forbidden(place, path === undefined)
    if (code !== undefined && code in SYSTEM) return SYSTEM[code]?.(place) ?? ''
  }
  return error.stack ?? error.message
}

function forbidden(place: string, isAddress: boolean): string {
  return isAddress
    ? `${place} may not be listened on by this user: set BERTH_HTTP_PORT to 1024 or above`
    : `${place} cannot be written to by this user: change its owner, or set BERTH_DATA_DIR to another directory`
}

interface Cause {
  readonly message: string
  readonly code?: string | undefined
  readonly path?: string | undefined
  readonly address?: string | undefined
  readonly port?: number | undefined
}

/** The error and what caused it, outermost first; of several attempts to connect, the last. */
function causes(error: unknown): Cause[] {
  if (!(error instanceof Error)) return []
  const inner = error instanceof AggregateError ? error.errors.at(-1) : error.cause
  const code = sqlState(error) ?? ('code' in error && typeof error.code === 'string' ? error.code : undefined)
  const { message, path, address, port } = error as Error & Partial<Cause>
  return [{ message, code, path, address, port }, ...causes(inner)]
}
