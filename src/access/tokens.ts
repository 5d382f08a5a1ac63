import type { PatternActions } from '../auth/identity.ts'
import { type SecretKind, makeSecret } from '../auth/secrets.ts'
import * as rows from '../metadata/access-tokens.ts'
import type { Queryable, Transaction } from '../metadata/database.ts'
import { findPrincipal, findPrincipals } from '../metadata/principals.ts'
import { RegistryError } from '../oci/errors.ts'
import {
  type Actor,
  type AdministrationContext,
  record,
  requireAdmin,
  requireOwnLogin,
  requireUnscoped,
  requireStillProven,
} from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { checkName, found, unlessTaken } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Two secrets of one token may be live, so that one can be replaced without a gap. */
const LIVE_SECRETS = 2

/** A personal access token as its owner sees it; its secrets are shown when they are made, and never again. */
export interface TokenInfo {
  readonly name: string
  readonly scopes: readonly PatternActions[] | null
  readonly expiresAt: Date | null
  readonly lastUsedAt: Date | null
  readonly createdAt: Date
  readonly secrets: number
}

/**
 * Makes a personal access token of a user, the actor itself where none is named. Its scopes narrow what the user may.
 * Answers the secret. @throws RegistryError DENIED, INVALID, NOT_FOUND, CONFLICT.
 */
export async function createToken(
  context: AdministrationContext,
  actor: Actor,
  token: {
    readonly user?: string
    readonly name: string
    readonly scopes?: readonly PatternActions[]
    readonly expiresAt?: Date
  },
): Promise<{ readonly secret: string }> {
  requireOwnLogin(actor)
  checkName(token.name, 'token')
  checkPatterns(token.scopes ?? [])
  const secret = await context.db.transaction(async tx => {
    const owner = await tokenOwner(tx, actor, token.user)
    const id = await rows.insertAccessToken(tx, {
      principalId: owner.id,
      name: token.name,
      scopes: token.scopes,
      expiresAt: token.expiresAt,
    })
    const made = await addSecret(tx, unlessTaken(id, `token ${token.name}`), 'pat')
    await record(tx, actor, 'token.create', { user: owner.name, token: token.name, scopes: token.scopes ?? null })
    return made
  })
  return { secret }
}

/** A user's tokens by name. @throws RegistryError DENIED, NOT_FOUND. */
export async function listTokens(
  context: AdministrationContext,
  actor: Actor,
  user: string | undefined,
  { last, limit }: PageRequest,
): Promise<Page<TokenInfo>> {
  const owner = await tokenOwner(context.db, actor, user)
  const tokens = await rows.listAccessTokens(context.db, owner.id, last, limit + 1)
  return pageOf(tokens, limit, { key: ({ name }) => name, present })
}

function present(row: rows.AccessTokenRow): TokenInfo {
  return {
    name: row.name,
    scopes: row.scopes as readonly PatternActions[] | null,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    createdAt: row.created_at,
    secrets: row.secrets.length,
  }
}

/**
 * Gives a token a new secret; the former one ends `overlapMs` from now, with every session that began with it. @throws RegistryError DENIED, NOT_FOUND.
 */
export async function rotateToken(
  context: AdministrationContext,
  actor: Actor,
  token: { readonly user?: string; readonly name: string; readonly overlapMs: number },
): Promise<{ readonly secret: string }> {
  requireOwnLogin(actor)
  const { owner, secret } = await context.db.transaction(async tx => {
    const owner = await tokenOwner(tx, actor, token.user)
    const row = found(await rows.findAccessToken(tx, owner.id, token.name), `token ${token.name}`)
    const secret = await replaceSecret(tx, row.id, 'pat', token.overlapMs)
    await record(tx, actor, 'token.rotate', {
      user: owner.name,
      token: token.name,
      overlapSeconds: token.overlapMs / 1000,
    })
    return { owner, secret }
  })
  context.onPrincipalChanged(owner.id)
  return { secret }
}

/** Removes a token with its secrets, and ends every session that began with it. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteToken(
  context: AdministrationContext,
  actor: Actor,
  token: { readonly user?: string; readonly name: string },
): Promise<void> {
  const ownerId = await context.db.transaction(async tx => {
    const owner = await tokenOwner(tx, actor, token.user)
    const row = found(await rows.findAccessToken(tx, owner.id, token.name), `token ${token.name}`)
    await rows.deleteAccessToken(tx, row.id)
    await record(tx, actor, 'token.delete', { user: owner.name, token: token.name })
    return owner.id
  })
  context.onPrincipalChanged(ownerId)
}

async function tokenOwner(
  db: Queryable,
  actor: Actor,
  user: string | undefined,
): Promise<{ readonly id: number; readonly name: string }> {
  requireUnscoped(actor)
  const { principalId, name } = actor.identity
  const own = principalId === undefined ? [] : await findPrincipals(db, [principalId])
  const principal = user === undefined ? own[0] : await findPrincipal(db, user)
  if (principal === undefined || principal.id !== principalId) await requireAdmin(db, actor)
  else await requireStillProven(db, actor.identity)
  if (principal?.kind === 'user') return principal
  throw new RegistryError('NOT_FOUND', {
    message: `there is no user ${user ?? name}, and only users have personal tokens`,
  })
}

/** Adds a secret to a new token. Answers it. */
export async function addSecret(tx: Transaction, tokenId: number, kind: SecretKind): Promise<string> {
  const secret = makeSecret(kind)
  await rows.insertSecret(tx, tokenId, secret.hash)
  return secret.text
}

/** Adds a secret beside the newest former one, which ends `overlapMs` from now with what it got. Answers the new one. */
export async function replaceSecret(
  tx: Transaction,
  tokenId: number,
  kind: SecretKind,
  overlapMs: number,
): Promise<string> {
  await rows.lockAccessToken(tx, tokenId)
  await rows.retireSecrets(tx, tokenId, LIVE_SECRETS - 1, overlapMs)
  return await addSecret(tx, tokenId, kind)
}
