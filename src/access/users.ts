import { siteOf } from '../auth/network.ts'
import { generatePassword, hashPassword, passwordFault } from '../auth/passwords.ts'
import type { Transaction } from '../metadata/database.ts'
import * as rows from '../metadata/principals.ts'
import { RegistryError } from '../oci/errors.ts'
import {
  type Actor,
  type AdministrationContext,
  asAdmin,
  keepingAdministrator,
  lockAdministrators,
  record,
  requireAdmin,
  requireUnscoped,
} from './actor.ts'
import { checkUserName, found, unlessTaken } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** A user, robot or CI identity as administrators see it. */
export interface PrincipalInfo {
  readonly name: string
  readonly kind: 'user' | 'robot' | 'ci'
  readonly active: boolean
  /** Who vouches for it, such as `htpasswd`; null: this registry. */
  readonly external: string | null
  readonly disabledAt: Date | null
  readonly expiresAt: Date | null
  readonly lastUsedAt: Date | null
  readonly createdAt: Date
  readonly createdBy: string | null
}

/** A principal without what proves it. */
export function presentPrincipal(row: rows.PrincipalRow): PrincipalInfo {
  return {
    name: row.name,
    kind: row.kind,
    active: row.active,
    external: row.external_issuer,
    disabledAt: row.disabled_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    createdAt: row.created_at,
    createdBy: row.created_by,
  }
}

/**
 * Adds a user, with the given password or a generated one, which is answered and kept nowhere.
 * @throws RegistryError DENIED, INVALID, CONFLICT.
 */
export async function createUser(
  context: AdministrationContext,
  actor: Actor,
  user: { readonly name: string; readonly password?: string },
): Promise<{ readonly name: string; readonly generatedPassword?: string }> {
  await requireAdmin(context.db, actor)
  const name = checkUserName(user.name)
  const password = user.password === undefined ? generatePassword() : checked(user.password)
  const passwordHash = await hashPassword(password, siteOf(actor.source.client))
  await asAdmin(context.db, actor, [], async tx => {
    const id = await rows.insertPrincipal(tx, { kind: 'user', name, passwordHash, createdBy: actor.identity.name })
    unlessTaken(id, `user ${name}`)
    await record(tx, actor, 'user.create', { user: name })
  })
  return user.password === undefined ? { name, generatedPassword: password } : { name }
}

/** Users by name. @throws RegistryError DENIED. */
export async function listUsers(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<PrincipalInfo>> {
  await requireAdmin(context.db, actor)
  const users = await rows.listPrincipals(context.db, 'user', last, limit + 1)
  return pageOf(users, limit, { key: ({ name }) => name, present: presentPrincipal })
}

/** Disables a user, with every token it has, or enables it. @throws RegistryError DENIED, NOT_FOUND, CONFLICT. */
export async function setUserDisabled(
  context: AdministrationContext,
  actor: Actor,
  name: string,
  disabled: boolean,
): Promise<void> {
  const mayChange = (tx: Transaction) => requireAdmin(tx, actor)
  const act = disabled ? 'disable' : 'enable'
  await changePrincipal(context, actor, { kind: 'user', name, act, mayChange }, (tx, id) =>
    rows.setDisabled(tx, id, disabled),
  )
}

/** Removes a user with its tokens and grants. @throws RegistryError DENIED, NOT_FOUND, CONFLICT. */
export async function deleteUser(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  const mayChange = (tx: Transaction) => requireAdmin(tx, actor)
  await changePrincipal(context, actor, { kind: 'user', name, act: 'delete', mayChange }, (tx, id) =>
    rows.deletePrincipal(tx, id),
  )
}

/**
 * Sets a user's password, which ends every session of it. Users set their own by showing the current one; a wrong one
 * counts like a wrong login.
 * @throws RegistryError DENIED, NOT_FOUND, INVALID, TOOMANYREQUESTS, UNAVAILABLE.
 */
export async function setUserPassword(
  context: AdministrationContext,
  actor: Actor,
  change: { readonly name: string; readonly password: string; readonly current?: string },
): Promise<void> {
  const { db } = context
  requireUnscoped(actor)
  const user = await rows.findPrincipal(db, change.name)
  const isOwn = user !== undefined && user.id === actor.identity.principalId
  if (!isOwn) await requireAdmin(db, actor)
  if (user?.kind !== 'user') throw new RegistryError('NOT_FOUND', { message: `there is no user ${change.name}` })
  if (user.external_issuer !== null) {
    throw new RegistryError('INVALID', {
      message: `the password of ${user.name} stands in the ${user.external_issuer} file`,
    })
  }
  const password = checked(change.password)
  if (isOwn) await requireCurrent(context, actor, { name: user.name, password: change.current ?? '' })
  const hash = await hashPassword(password, siteOf(actor.source.client))
  await db.transaction(async tx => {
    // Time has passed since, and what a hash costs.
    if (!isOwn) {
      await lockAdministrators(tx)
      await requireAdmin(tx, actor)
    }
    // Who knew the former password must not write over what an administrator has set meanwhile.
    const changed = await rows.setPasswordHash(tx, user.id, hash, isOwn ? user.epoch : undefined)
    if (isOwn && !changed) throw new RegistryError('CONFLICT', { message: `user ${user.name} was changed meanwhile` })
    found(changed || undefined, `user ${change.name}`)
    await record(tx, actor, 'user.password', { user: change.name })
  })
  context.onPrincipalChanged(user.id)
}

/** @throws RegistryError DENIED where it is not the user's current password; TOOMANYREQUESTS, UNAVAILABLE. */
async function requireCurrent(
  { confirmPassword }: AdministrationContext,
  { source }: Actor,
  shown: { readonly name: string; readonly password: string },
): Promise<void> {
  try {
    await confirmPassword(shown, source)
  } catch (cause) {
    if (!(cause instanceof RegistryError) || cause.code !== 'UNAUTHORIZED') throw cause
    throw new RegistryError('DENIED', { message: 'the current password is wrong', cause })
  }
}

/**
 * Changes one principal in one transaction, with its record, after `mayChange` refused nobody, and makes sure that an
 * administrator is left. @throws RegistryError NOT_FOUND, CONFLICT; what `mayChange` throws.
 */
export async function changePrincipal(
  context: AdministrationContext,
  actor: Actor,
  target: {
    readonly kind: rows.PrincipalRow['kind']
    readonly name: string
    readonly act: string
    readonly detail?: Readonly<Record<string, unknown>>
    readonly mayChange: (tx: Transaction) => Promise<unknown>
  },
  change: (tx: Transaction, id: number) => Promise<boolean>,
): Promise<void> {
  const what = `${target.kind} ${target.name}`
  const id = await context.db.transaction(async tx => {
    await lockAdministrators(tx)
    await target.mayChange(tx)
    const principal = await rows.findPrincipal(tx, target.name)
    if (principal?.kind !== target.kind) throw new RegistryError('NOT_FOUND', { message: `there is no ${what}` })
    const changed = await keepingAdministrator(tx, () => change(tx, principal.id))
    found(changed || undefined, what)
    await record(tx, actor, `${target.kind}.${target.act}`, { [target.kind]: target.name, ...target.detail })
    return principal.id
  })
  context.onPrincipalChanged(id)
}

function checked(password: string): string {
  const fault = passwordFault(password)
  if (fault !== undefined) throw new RegistryError('INVALID', { message: fault })
  return password
}
