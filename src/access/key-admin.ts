import { listAudit as auditRows } from '../metadata/audit.ts'
import type { AuditRow } from '../metadata/audit.ts'
import { listSigningKeys } from '../metadata/signing-keys.ts'
import { type Actor, type AdministrationContext, record, requireAdmin } from './actor.ts'
import { rotateKeysNow } from './keys.ts'

/** A key that signs tokens, as administrators see it. */
export interface KeyInfo {
  readonly kid: string
  readonly state: 'next' | 'signing' | 'retiring'
  readonly signsFrom: Date
  readonly retiresAt: Date | null
}

/** Every key that is still published. @throws RegistryError DENIED. */
export async function listKeys(context: AdministrationContext, actor: Actor): Promise<readonly KeyInfo[]> {
  await requireAdmin(context.db, actor)
  return (await listSigningKeys(context.db)).map(row => ({
    kid: row.kid,
    state: row.retires_at !== null ? 'retiring' : row.signing ? 'signing' : 'next',
    signsFrom: row.signs_from,
    retiresAt: row.retires_at,
  }))
}

/**
 * Rotates the signing keys now. `distrust` ends every token and upload capability that was signed until now: for a key
 * that leaked. @throws RegistryError DENIED.
 */
export async function rotateKeys(context: AdministrationContext, actor: Actor, distrust: boolean): Promise<void> {
  await requireAdmin(context.db, actor)
  await context.db.transaction(async tx => {
    await rotateKeysNow(tx, context.keyLifetimes, distrust)
    await record(tx, actor, 'key.rotate', { distrust })
  })
  context.onKeysChanged()
}

/** Audit entries before `beforeId` (all, where undefined), newest first. @throws RegistryError DENIED. */
export async function listAudit(
  context: AdministrationContext,
  actor: Actor,
  of: { readonly actor?: string; readonly kind?: string },
  beforeId: number | undefined,
  limit: number,
): Promise<readonly AuditRow[]> {
  await requireAdmin(context.db, actor)
  return await auditRows(context.db, of, beforeId, limit)
}
