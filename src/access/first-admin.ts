import { generatePassword, hashPassword } from '../auth/passwords.ts'
import type { Database } from '../metadata/database.ts'
import { insertAudit } from '../metadata/audit.ts'
import { putGrant } from '../metadata/grants.ts'
import { insertPrincipal } from '../metadata/principals.ts'

/** The administrator that a registry begins with. */
export const FIRST_ADMIN = 'admin'

/**
 * Makes the first administrator where no principal exists yet, with the given password or a generated one. Any number of
 * processes may call it at once; one of them makes it. Answers the generated password to be shown once, where there is one.
 */
export async function ensureFirstAdmin(db: Database, password: string | undefined): Promise<string | undefined> {
  const present = await db.query('select id from principal limit 1')
  if (present.length > 0) return undefined
  const chosen = password ?? generatePassword()
  const passwordHash = await hashPassword(chosen)
  const made = await db.transaction(async tx => {
    await tx.query("select pg_advisory_xact_lock(hashtextextended('first administrator', 0))")
    if ((await tx.query('select id from principal limit 1')).length > 0) return false
    const id = await insertPrincipal(tx, { kind: 'user', name: FIRST_ADMIN, passwordHash, createdBy: 'start' })
    if (id === undefined) return false
    await putGrant(tx, { subject: 'principal', principalId: id, pattern: '**', actions: ['admin'], createdBy: 'start' })
    await insertAudit(tx, [
      { kind: 'user.create', outcome: 'ok', actor: 'start', detail: { user: FIRST_ADMIN, grant: 'admin on **' } },
    ])
    return true
  })
  return made && password === undefined ? chosen : undefined
}
