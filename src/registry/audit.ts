import { insertAudit } from '../metadata/audit.ts'
import type { Transaction } from '../metadata/database.ts'
import type { AdminCaller } from './context.ts'

/** Records what an administrator did to content, in the transaction that does it. */
export async function recordAct(
  tx: Transaction,
  caller: AdminCaller,
  kind: string,
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { principal: actor, principalId, client, requestId } = caller
  const who = principalId === undefined ? { actor } : { actor, actorId: principalId }
  await insertAudit(tx, [{ kind, outcome: 'ok', ...who, client, requestId, detail }])
}
