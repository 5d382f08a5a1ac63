import type { AdministrationContext } from './actor.ts'
import * as grants from './grant-admin.ts'
import * as groups from './groups.ts'
import * as keys from './key-admin.ts'
import * as robots from './robots.ts'
import * as tokens from './tokens.ts'
import * as trust from './trust-admin.ts'
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
  explainAccess: grants.explainAccess,
  createTrustRule: trust.createTrustRule,
  listTrustRules: trust.listTrustRules,
  deleteTrustRule: trust.deleteTrustRule,
  listKeys: keys.listKeys,
  rotateKeys: keys.rotateKeys,
  listAudit: keys.listAudit,
} as const

type Bound<F> = F extends (context: AdministrationContext, ...args: infer A) => infer R ? (...args: A) => R : never

/** The use cases of administration, one method each; what every method means stands with the function it calls. */
export type Administration = { readonly [K in keyof typeof USE_CASES]: Bound<(typeof USE_CASES)[K]> }

/** Binds the use cases to what they work with. */
export function createAdministration(context: AdministrationContext): Administration {
  const bound = Object.entries(USE_CASES).map(([name, useCase]) => [
    name,
    (...args: unknown[]) => (useCase as (...all: unknown[]) => unknown)(context, ...args),
  ])
  return Object.fromEntries(bound) as Administration
}
