import { type MirrorFailure, lastFailures, mirrorTotals } from '../metadata/mirror-figures.ts'
import * as rows from '../metadata/mirrors.ts'
import { RegistryError } from '../oci/errors.ts'
import { tryParseName } from '../oci/name.ts'
import { patternFault } from '../oci/repository-pattern.ts'
import { tagPatternFault } from '../oci/tag-pattern.ts'
import {
  type Actor,
  type AdministrationContext,
  type Administered,
  type MirrorTestStep,
  type MirrorView,
  administeredBy,
  record,
  requireAdmin,
} from './actor.ts'
import { type MirrorInfo, presentMirror } from './mirror-info.ts'
import { found } from './names.ts'
import type { Page, PageRequest } from './page.ts'

/** What is kept of a mirror that the API added, besides its login; as in the settings, what is absent has its default there. */
export interface StoredMirror {
  readonly url: string
  readonly allow?: string[]
  readonly deny?: string[]
  readonly tagTtlSeconds?: number
  readonly tagTtls?: { tags: string; ttlSeconds: number }[]
  readonly offline?: boolean
  readonly keepDeletedTags?: boolean
  readonly namespaces?: string[]
  readonly hosts?: string[]
  readonly trustedHosts?: string[]
  readonly allowPrivate?: boolean
  /** PEM. */
  readonly ca?: string
  readonly proxy?: string
  readonly maxBytes?: number
  readonly bytesPerSecond?: number
}

/** A login at an upstream. */
export interface MirrorLogin {
  readonly username: string
  readonly password: string
}

/** What to change of a mirror; null: as it is without being set. */
export type MirrorChange = { readonly [K in keyof StoredMirror]?: StoredMirror[K] | null } & {
  readonly login?: MirrorLogin | null
}

/** Mirrors by prefix: those whose repositories the actor administers. @throws RegistryError DENIED. */
export async function listMirrors(
  { db, mirrors }: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<MirrorInfo>> {
  const isWithin = await administeredBy(db, actor)
  const views = (await mirrors.list()).filter(view => view.prefix > last && mayAdminister(isWithin, view.prefix))
  await mirrors.flush()
  const shown = views.slice(0, limit)
  const totals = await mirrorTotals(
    db,
    shown.map(({ prefix }) => prefix),
  )
  const items = shown.map(view => presentMirror(view, totals.get(view.prefix)))
  const end = shown.at(-1)
  return views.length > limit && end !== undefined ? { items, next: end.prefix } : { items }
}

/** One mirror with the last failures of its upstream, the newest first. @throws RegistryError DENIED, NOT_FOUND. */
export async function showMirror(
  context: AdministrationContext,
  actor: Actor,
  prefix: string,
): Promise<MirrorInfo & { readonly lastFailures: readonly MirrorFailure[] }> {
  const { db, mirrors } = context
  const view = await viewOf(context, actor, prefix)
  await mirrors.flush()
  const totals = await mirrorTotals(db, [prefix])
  return { ...presentMirror(view, totals.get(prefix)), lastFailures: await lastFailures(db, prefix) }
}

/** What {@link addMirror} makes. */
export interface NewMirror extends StoredMirror {
  readonly prefix: string
  readonly login?: MirrorLogin
  /** Whether repositories that are there already become copies, which cannot be pushed to and may be evicted. */
  readonly overExisting: boolean
}

/**
 * Adds a mirror; this process has it at once, the others within seconds. Only for administrators of the registry: a
 * mirror takes bytes from elsewhere in our name.
 * @throws RegistryError DENIED, INVALID; CONFLICT where its prefix or a name of it is another mirror's, or where there are
 * repositories below the prefix.
 */
export async function addMirror(context: AdministrationContext, actor: Actor, mirror: NewMirror): Promise<MirrorView> {
  const { db, mirrors } = context
  const { prefix, login, overExisting, ...settings } = mirror
  await requireAdmin(db, actor)
  if (tryParseName(prefix) === undefined) {
    throw new RegistryError('INVALID', {
      message: `${prefix.slice(0, 300)}: a prefix is the beginning of a repository name`,
    })
  }
  check(settings)
  const fixed = (await mirrors.list()).filter(({ source }) => source === 'settings')
  await db.transaction(async tx => {
    await rows.lockMirrors(tx)
    checkFree(prefix, settings, fixed, await rows.listMirrors(tx))
    const below = overExisting ? undefined : await rows.repositoryBelow(tx, prefix)
    if (below !== undefined) {
      throw new RegistryError('CONFLICT', {
        message: `${below} is there already, and would become a copy that cannot be pushed to: say so if that is wanted (--over-existing)`,
      })
    }
    const { username = null, password = null } = login ?? {}
    await rows.insertMirror(tx, { prefix, settings, username, password, created_by: actor.identity.name })
    await record(tx, actor, 'mirror.add', { prefix, ...said(settings), username })
  })
  return await viewOf(context, actor, prefix)
}

/**
 * Changes a mirror that was added; requests that are under way end as they began.
 * @throws RegistryError DENIED, INVALID, NOT_FOUND; CONFLICT as {@link addMirror} does, and for one of the settings.
 */
export async function changeMirror(
  context: AdministrationContext,
  actor: Actor,
  prefix: string,
  { login, ...change }: MirrorChange,
): Promise<MirrorView> {
  const { db, mirrors } = context
  await requireAdmin(db, actor)
  const fixed = (await mirrors.list()).filter(({ source }) => source === 'settings')
  refuseFixed(prefix, fixed)
  await db.transaction(async tx => {
    await rows.lockMirrors(tx)
    const all = await rows.listMirrors(tx)
    const row = found(
      all.find(one => one.prefix === prefix),
      `mirror ${prefix}`,
    )
    const entries = Object.entries({ ...(row.settings as StoredMirror), ...change })
    const settings = Object.fromEntries(entries.filter(([, value]) => value !== null)) as unknown as StoredMirror
    check(settings)
    checkFree(
      prefix,
      settings,
      fixed,
      all.filter(one => one !== row),
    )
    // A password that was meant for one registry goes to no other.
    if (login === undefined && row.username !== null && originOf(settings) !== originOf(row.settings as StoredMirror)) {
      throw new RegistryError('INVALID', { message: 'give the login anew for another upstream, or none (null)' })
    }
    const { username, password } = login === undefined ? row : (login ?? { username: null, password: null })
    await rows.updateMirror(tx, { prefix, settings, username, password })
    await record(tx, actor, 'mirror.change', { prefix, ...said(settings), username, login: login !== undefined })
  })
  return await viewOf(context, actor, prefix)
}

/**
 * Removes a mirror. Its repositories stay, as repositories like others that can be pushed to; their copies are kept as
 * tagged and untagged content is. @throws RegistryError DENIED, NOT_FOUND; CONFLICT for one of the settings.
 */
export async function removeMirror(context: AdministrationContext, actor: Actor, prefix: string): Promise<void> {
  const { db, mirrors } = context
  await requireAdmin(db, actor)
  refuseFixed(prefix, await mirrors.list())
  await db.transaction(async tx => {
    await rows.lockMirrors(tx)
    found((await rows.deleteMirror(tx, prefix)) || undefined, `mirror ${prefix}`)
    await record(tx, actor, 'mirror.remove', { prefix })
  })
  await mirrors.list()
}

/**
 * Asks a mirror's upstream, step by step, up to the first that fails; with a repository (by its name there) whether that
 * can be pulled. @throws RegistryError DENIED, NOT_FOUND.
 */
export async function testMirror(
  context: AdministrationContext,
  actor: Actor,
  prefix: string,
  repository: string | undefined,
): Promise<readonly MirrorTestStep[]> {
  if (repository !== undefined && tryParseName(repository) === undefined) {
    throw new RegistryError('INVALID', { message: `${repository.slice(0, 300)} is no name of a repository` })
  }
  await viewOf(context, actor, prefix)
  return found(await context.mirrors.test(prefix, repository), `mirror ${prefix}`)
}

async function viewOf({ db, mirrors }: AdministrationContext, actor: Actor, prefix: string): Promise<MirrorView> {
  const isWithin = await administeredBy(db, actor)
  const view = (await mirrors.list()).find(one => one.prefix === prefix && mayAdminister(isWithin, prefix))
  return found(view, `mirror ${prefix}`)
}

function mayAdminister(isWithin: Administered, prefix: string): boolean {
  return isWithin([`${prefix}/**`])
}

function refuseFixed(prefix: string, views: readonly MirrorView[]): void {
  if (!views.some(view => view.prefix === prefix && view.source === 'settings')) return
  throw new RegistryError('CONFLICT', { message: `mirror ${prefix} stands in the settings: change it there` })
}

function check(settings: StoredMirror): void {
  const faults = [
    ...[...(settings.allow ?? []), ...(settings.deny ?? [])].map(pattern => [pattern, patternFault(pattern)]),
    ...(settings.tagTtls ?? []).map(({ tags }) => [tags, tagPatternFault(tags)]),
  ].flatMap(([what, fault]) => (fault === undefined ? [] : `${(what ?? '').slice(0, 300)}: ${fault}`))
  if (faults.length > 0) throw new RegistryError('INVALID', { message: faults.join('; ').slice(0, 2_000) })
}

/** Prefixes must not contain each other, and a name that clients say leads to one mirror. @throws RegistryError CONFLICT. */
function checkFree(
  prefix: string,
  settings: StoredMirror,
  fixed: readonly MirrorView[],
  added: readonly rows.MirrorRow[],
): void {
  const others = [...fixed, ...added.map(row => ({ ...(row.settings as StoredMirror), prefix: row.prefix }))]
  for (const other of others) {
    if (other.prefix === prefix) throw taken(`there is a mirror ${prefix} already`)
    if (other.prefix.startsWith(`${prefix}/`) || prefix.startsWith(`${other.prefix}/`)) {
      throw taken(`mirror ${other.prefix} is in the way: prefixes must not contain each other`)
    }
    for (const key of ['namespaces', 'hosts'] as const) {
      const theirs = new Set((other[key] ?? []).map(name => name.toLowerCase()))
      const twice = (settings[key] ?? []).find(name => theirs.has(name.toLowerCase()))
      if (twice !== undefined) throw taken(`${twice} is among the ${key} of mirror ${other.prefix}`)
    }
  }
}

function taken(message: string): RegistryError {
  return new RegistryError('CONFLICT', { message })
}

function originOf({ url }: StoredMirror): string {
  return new URL(url).origin
}

/** What the audit holds of settings: certificates are long, and say nothing to a reader. */
function said({ ca, ...settings }: StoredMirror): Record<string, unknown> {
  return { ...settings, ...(ca === undefined ? {} : { ca: true }) }
}
