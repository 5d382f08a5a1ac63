import { insertAudit } from '../metadata/audit.ts'
import { RegistryError } from '../oci/errors.ts'
import { type Actor, type AdministrationContext, auditEntry } from './actor.ts'
import * as collection from './collection-admin.ts'
import * as content from './content-access.ts'
import { explainAccess } from './explanation.ts'
import * as grants from './grant-admin.ts'
import * as groups from './groups.ts'
import * as keys from './key-admin.ts'
import * as mirrors from './mirror-admin.ts'
import * as quotas from './quota-admin.ts'
import * as policies from './retention-policies.ts'
import * as runs from './retention-runs.ts'
import * as robots from './robots.ts'
import * as storage from './storage-admin.ts'
import * as syncs from './syncs.ts'
import * as tagRules from './tag-rule-admin.ts'
import * as tokens from './tokens.ts'
import * as trust from './trust-admin.ts'
import * as usage from './usage-admin.ts'
import * as users from './users.ts'

const USE_CASES = {
  createUser: users.createUser,
  listUsers: users.listUsers,
  setUserDisabled: users.setUserDisabled,
  setUserPassword: users.setUserPassword,
  deleteUser: users.deleteUser,
  createGroup: groups.createGroup,
  listGroups: groups.listGroups,
  deleteGroup: groups.deleteGroup,
  addGroupMember: groups.addGroupMember,
  removeGroupMember: groups.removeGroupMember,
  listGroupMembers: groups.listGroupMembers,
  createRobot: robots.createRobot,
  listRobots: robots.listRobots,
  rotateRobot: robots.rotateRobot,
  changeRobot: robots.changeRobot,
  deleteRobot: robots.deleteRobot,
  createToken: tokens.createToken,
  listTokens: tokens.listTokens,
  rotateToken: tokens.rotateToken,
  deleteToken: tokens.deleteToken,
  addGrant: grants.addGrant,
  listGrants: grants.listGrants,
  removeGrant: grants.removeGrant,
  explainAccess,
  requireAction: content.requireAction,
  visibleNames: content.visibleNames,
  addTagRule: tagRules.addTagRule,
  listTagRules: tagRules.listTagRules,
  removeTagRule: tagRules.removeTagRule,
  createTrustRule: trust.createTrustRule,
  listTrustRules: trust.listTrustRules,
  deleteTrustRule: trust.deleteTrustRule,
  testTrust: trust.testTrust,
  listKeys: keys.listKeys,
  rotateKeys: keys.rotateKeys,
  listAudit: keys.listAudit,
  listStores: storage.listStores,
  planStorageCopy: storage.planStorageCopy,
  startStorageCopy: storage.startStorageCopy,
  getStorageCopy: storage.getStorageCopy,
  stopStorageCopy: storage.stopStorageCopy,
  adoptStorage: storage.adoptStorage,
  putRetentionPolicy: policies.putRetentionPolicy,
  listRetentionPolicies: policies.listRetentionPolicies,
  deleteRetentionPolicy: policies.deleteRetentionPolicy,
  startRetention: runs.startRetention,
  confirmRetention: runs.confirmRetention,
  listRetentionRuns: runs.listRetentionRuns,
  getRetentionRun: runs.getRetentionRun,
  listRetentionRepositories: runs.listRetentionRepositories,
  listRetentionItems: runs.listRetentionItems,
  listPulls: runs.listPulls,
  startCollection: collection.startCollection,
  collectionStatus: collection.collectionStatus,
  listCollectable: collection.listCollectable,
  startVerification: collection.startVerification,
  verificationStatus: collection.verificationStatus,
  listDamaged: collection.listDamaged,
  listSyncs: syncs.listSyncs,
  startSync: syncs.startSync,
  stopSync: syncs.stopSync,
  listSyncRuns: syncs.listSyncRuns,
  getSyncRun: syncs.getSyncRun,
  listSyncItems: syncs.listSyncItems,
  listUsage: usage.listUsage,
  totalUsage: usage.totalUsage,
  setQuota: quotas.setQuota,
  listQuotas: quotas.listQuotas,
  showQuota: quotas.showQuota,
  deleteQuota: quotas.deleteQuota,
  listMirrors: mirrors.listMirrors,
  showMirror: mirrors.showMirror,
  addMirror: mirrors.addMirror,
  changeMirror: mirrors.changeMirror,
  removeMirror: mirrors.removeMirror,
  testMirror: mirrors.testMirror,
} as const

type Bound<F> = F extends (context: AdministrationContext, actor: Actor, ...args: infer A) => infer R
  ? (actor: Actor, ...args: A) => R
  : never
type UseCase = (context: AdministrationContext, actor: Actor, ...args: readonly unknown[]) => Promise<unknown>

/** The use cases of administration, one method each; what every method means stands with the function it calls. */
export type Administration = { readonly [K in keyof typeof USE_CASES]: Bound<(typeof USE_CASES)[K]> }

/** Binds the use cases to what they work with, and records what they refuse. */
export function createAdministration(context: AdministrationContext): Administration {
  const bound = Object.entries(USE_CASES).map(([name, useCase]) => [
    name,
    async (actor: Actor, ...args: readonly unknown[]) => {
      try {
        return await (useCase as UseCase)(context, actor, ...args)
      } catch (error) {
        if (error instanceof RegistryError && error.code === 'DENIED') await recordRefusal(context, actor, name, error)
        throw error
      }
    },
  ])
  return Object.fromEntries(bound) as Administration
}

async function recordRefusal(
  { db }: AdministrationContext,
  actor: Actor,
  act: string,
  { message: reason }: RegistryError,
): Promise<void> {
  await db.transaction(tx => insertAudit(tx, [auditEntry(actor, 'administration', 'refused', { act, reason })]))
}
