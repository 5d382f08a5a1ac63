import { listAudit as auditRows } from '../metadata/audit.ts'
import type { AuditRow } from '../metadata/audit.ts'
import { listSigningKeys } from '../metadata/signing-keys.ts'
import { type Actor, type AdministrationContext, asAdmin, record, requireAdmin } from './actor.ts'
import { rotateKeysNow } from './keys.ts'
import { type Page, type PageRequest, idOf, pageOf } from './page.ts'

/** A key that signs tokens, as administrators see it. */
export interface KeyInfo {
  readonly kid: string
  readonly state: 'next' | 'signing' | 'retiring'
  readonly signsFrom: Date
  readonly retiresAt: Date | null
}

/** What was done or refused, as administrators see it. */
export type AuditEntry = Omit<AuditRow, 'request_id'> & { readonly requestId: string | null }

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
  await asAdmin(context.db, actor, [], async tx => {
    await rotateKeysNow(tx, context.keyLifetimes, distrust)
    await record(tx, actor, 'key.rotate', { distrust })
  })
  context.onKeysChanged()
}

/** Audit entries, newest first. @throws RegistryError DENIED. */
export async function listAudit(
  context: AdministrationContext,
  actor: Actor,
  of: { readonly actor?: string; readonly kind?: string },
  { last, limit }: PageRequest,
): Promise<Page<AuditEntry>> {
  await requireAdmin(context.db, actor)
  const present = ({ request_id: requestId, ...entry }: AuditRow): AuditEntry => ({ ...entry, requestId })
  return pageOf(await auditRows(context.db, of, idOf(last), limit + 1), limit, { key: ({ id }) => String(id), present })
}
