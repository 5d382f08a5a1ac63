import type { Queryable, Transaction } from './database.ts'

/** What {@link mirrorExternalUsers} changed: names of users. */
export interface MirroredUsers {
  readonly added: readonly string[]
  /** They prove themselves by something else now; every token that was issued before is over. */
  readonly changed: readonly string[]
  /** They are not vouched for any more; every token that was issued before is over. */
  readonly removed: readonly string[]
}

/** Until the transaction ends no other one that takes this lock changes who `issuer` vouches for, in any process. */
export async function lockExternalUsers(tx: Transaction, issuer: string): Promise<void> {
  await tx.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`users of ${issuer}`])
}

/**
 * Makes the users that `issuer` vouches for those of `proofs`: by name, a hash of what each proves itself by. One call at a
 * time across processes. Names that belong to others stay as they are.
 */
export async function mirrorExternalUsers(
  tx: Transaction,
  issuer: string,
  proofs: ReadonlyMap<string, string>,
): Promise<MirroredUsers> {
  await lockExternalUsers(tx, issuer)
  const lists = [[...proofs.keys()], [...proofs.values()]]
  const changed = await tx.query<{ name: string }>(
    `update principal p set external_proof = u.proof, epoch = p.epoch + 1
       from unnest($2::text[], $3::text[]) as u (name, proof)
      where p.external_issuer = $1 and p.external_subject = u.name and p.external_proof is distinct from u.proof
      returning p.name`,
    [issuer, ...lists],
  )
  const removed = await tx.query<{ name: string }>(
    `update principal set external_proof = null, epoch = epoch + 1
      where external_issuer = $1 and external_proof is not null and external_subject <> all ($2::text[])
      returning name`,
    [issuer, lists[0]],
  )
  const added = await addExternalUsers(tx, issuer, proofs)
  return { added, changed: namesOf(changed), removed: namesOf(removed) }
}

/**
 * Adds users that `issuer` vouches for under their own names; those that are there stay as they are. The caller holds
 * {@link lockExternalUsers}. Answers which were added.
 */
export async function addExternalUsers(
  tx: Transaction,
  issuer: string,
  proofs: ReadonlyMap<string, string>,
): Promise<readonly string[]> {
  return namesOf(
    await tx.query<{ name: string }>(
      `insert into principal (kind, name, external_issuer, external_subject, external_proof, created_by)
       select 'user', u.name, $1, u.name, u.proof, $1
         from unnest($2::text[], $3::text[]) as u (name, proof) order by u.name
       on conflict do nothing returning name`,
      [issuer, [...proofs.keys()], [...proofs.values()]],
    ),
  )
}

/** Which of these names belong to principals that `issuer` does not vouch for. */
export async function namesTakenFrom(
  db: Queryable,
  issuer: string,
  names: readonly string[],
): Promise<readonly string[]> {
  return namesOf(
    await db.query<{ name: string }>(
      `select p.name from principal p
        where p.name = any($2::text[]) and p.external_issuer is distinct from $1 order by p.name`,
      [issuer, names],
    ),
  )
}

function namesOf(rows: readonly { readonly name: string }[]): readonly string[] {
  return rows.map(({ name }) => name)
}
