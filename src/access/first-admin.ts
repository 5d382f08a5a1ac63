import { generatePassword, hashPassword } from '../auth/passwords.ts'
import type { Database } from '../metadata/database.ts'
import { insertAudit } from '../metadata/audit.ts'
import { putGrant } from '../metadata/grants.ts'
import { insertPrincipal } from '../metadata/principals.ts'
import { EVERYTHING, hasAdministrator, lockAdministrators } from './actor.ts'

/** The administrator that a registry begins with. */
export const FIRST_ADMIN = 'admin'

/** What a start found or did: a password that is shown once, or that nobody administers and `admin` is taken. */
export interface FirstAdmin {
  readonly generatedPassword?: string
  readonly nobodyAdministers: boolean
}

/**
 * Makes the administrator where nobody administers the registry, with the given password or a generated one: also where
 * there are users already, made while the registry was open. Any number of processes may call it at once; one of them
 * makes it. A user `admin` who is there already is left as it is.
 */
export async function ensureFirstAdmin(db: Database, password: string | undefined): Promise<FirstAdmin> {
  if (await hasAdministrator(db)) return { nobodyAdministers: false }
  const chosen = password ?? generatePassword()
  const passwordHash = await hashPassword(chosen)
  return await db.transaction(async tx => {
    await lockAdministrators(tx)
    if (await hasAdministrator(tx)) return { nobodyAdministers: false }
    const id = await insertPrincipal(tx, { kind: 'user', name: FIRST_ADMIN, passwordHash, createdBy: 'start' })
    if (id === undefined) return { nobodyAdministers: true }
    const actions = ['admin']
    await putGrant(tx, { subject: 'principal', principalId: id, pattern: EVERYTHING, actions, createdBy: 'start' })
    await insertAudit(tx, [
      { kind: 'user.create', outcome: 'ok', actor: 'start', detail: { user: FIRST_ADMIN, grant: 'admin on **' } },
    ])
    return { nobodyAdministers: false, ...(password === undefined ? { generatedPassword: chosen } : {}) }
  })
}
