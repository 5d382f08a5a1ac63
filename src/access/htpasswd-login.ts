import type { Proof } from '../auth/authority.ts'
import { type Htpasswd, hashesToCompare } from '../auth/htpasswd.ts'
import { RightPasswords } from '../auth/login-memory.ts'
import { siteOf } from '../auth/network.ts'
import { verifyPassword } from '../auth/passwords.ts'
import { insertAudit } from '../metadata/audit.ts'
import type { Database } from '../metadata/database.ts'
import { type PrincipalRow, findPrincipal, insertExternalUsers, namesTakenFrom } from '../metadata/principals.ts'
import type { Authenticator } from './authenticator.ts'
import { REMEMBER_MS } from './password-login.ts'
import type { Vouching } from './principal-states.ts'

/** What rows of users from an htpasswd file name as the one who vouches for them. */
const ISSUER = 'htpasswd'

/**
 * Gives every user of the file a row, so that it can be granted something before it first logs in. Any number of processes
 * may call it at once. Answers the names that belong to others here; whoever has one in the file cannot log in by it.
 */
export async function mirrorHtpasswd(db: Database, { hashes }: Htpasswd): Promise<readonly string[]> {
  const names = [...hashes.keys()]
  await db.transaction(async tx => {
    const added = await insertExternalUsers(tx, ISSUER, names)
    if (added.length === 0) return
    await insertAudit(
      tx,
      added.map(user => ({ kind: 'user.create', outcome: 'ok', actor: ISSUER, detail: { user } })),
    )
  })
  return await namesTakenFrom(db, ISSUER, names)
}

/** Refuses the users of an htpasswd file that are not in it any more, with all their tokens. */
export function htpasswdVouching(current: () => Htpasswd | undefined): Vouching {
  return ({ external_issuer: issuer, external_subject: subject }) =>
    issuer !== ISSUER || (subject !== null && current()?.hashes.has(subject) === true)
}

/**
 * Users of an htpasswd file. A name that is not in it, or belongs to somebody else here, costs as much as one that is,
 * whatever the cost of its hash; the chain goes on also after a wrong password, so that time tells nothing.
 */
export function htpasswdAuthenticator(db: Database, current: () => Htpasswd): Authenticator {
  const right = new RightPasswords(REMEMBER_MS)
  const hashFor = (name: string, principal: PrincipalRow | undefined): string | undefined =>
    principal === undefined || principal.external_issuer === ISSUER ? current().hashes.get(name) : undefined
  return {
    name: 'htpasswd',
    async recall({ name, password }) {
      const principal = await findPrincipal(db, name)
      const hash = hashFor(name, principal)
      const isKnown = hash !== undefined && principal?.active === true && right.has(hash, password)
      return isKnown ? proofOf(principal) : undefined
    },
    async check({ name, password }, { client }) {
      const known = await findPrincipal(db, name)
      const hash = hashFor(name, known)
      const [compared, ...decoys] = hashesToCompare(current(), hash)
      const isRight = await verifyPassword(password, compared, siteOf(client), decoys)
      if (hash === undefined || !isRight) return undefined
      const principal = known ?? (await addUser(db, name))
      if (principal === undefined) return undefined
      if (!principal.active) return { refused: 'disabled user', message: `${name} is disabled` }
      right.add(hash, password)
      return proofOf(principal)
    },
  }
}

/** The row of a user that was deleted here and still stands in the file; undefined where its name was given away. */
async function addUser(db: Database, name: string): Promise<PrincipalRow | undefined> {
  await db.transaction(tx => insertExternalUsers(tx, ISSUER, [name]))
  const principal = await findPrincipal(db, name)
  return principal?.external_issuer === ISSUER ? principal : undefined
}

function proofOf({ name, id, epoch }: PrincipalRow): Proof {
  return { identity: { kind: 'user', name, principalId: id, epoch } }
}
