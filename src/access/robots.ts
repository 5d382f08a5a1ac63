import type { PatternActions } from '../auth/identity.ts'
import { findAccessToken, insertAccessToken } from '../metadata/access-tokens.ts'
import type { Transaction } from '../metadata/database.ts'
import { grantedPatterns, putGrant } from '../metadata/grants.ts'
import * as rows from '../metadata/principals.ts'
import {
  type Actor,
  type AdministrationContext,
  administeredBy,
  asAdmin,
  lockAdministrators,
  patternsOf,
  record,
} from './actor.ts'
import { checkPatterns } from './grant-admin.ts'
import { found, robotName, unlessTaken } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'
import { addSecret, replaceSecret } from './tokens.ts'
import { type PrincipalInfo, changePrincipal, presentPrincipal } from './users.ts'

/** A robot has one token, and its principal's grants say what it may. */
const TOKEN = 'robot'

/**
 * Makes a robot with its grants; answers its full name and its secret. Whoever administers all that is granted may.
 * @throws RegistryError DENIED, INVALID, CONFLICT.
 */
export async function createRobot(
  context: AdministrationContext,
  actor: Actor,
  robot: { readonly name: string; readonly grants: readonly PatternActions[]; readonly expiresAt?: Date },
): Promise<{ readonly name: string; readonly secret: string }> {
  const name = robotName(robot.name)
  checkPatterns(robot.grants)
  const createdBy = actor.identity.name
  const secret = await asAdmin(context.db, actor, patternsOf(robot.grants), async tx => {
    const expiry = robot.expiresAt === undefined ? {} : { expiresAt: robot.expiresAt }
    const id = await rows.insertPrincipal(tx, { kind: 'robot', name, createdBy, ...expiry })
    const principalId = unlessTaken(id, name)
    for (const { pattern, actions } of robot.grants) {
      await putGrant(tx, { subject: 'principal', principalId, pattern, actions, createdBy })
    }
    const token = await insertAccessToken(tx, { principalId, name: TOKEN, scopes: undefined, expiresAt: undefined })
    const made = await addSecret(tx, unlessTaken(token, `token of ${name}`), 'robot')
    await record(tx, actor, 'robot.create', { robot: name, grants: robot.grants, expiresAt: robot.expiresAt ?? null })
    return made
  })
  return { name, secret }
}

/** Robots by name: those that the actor may change. @throws RegistryError DENIED. */
export async function listRobots(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<PrincipalInfo>> {
  const { db } = context
  const isWithin = await administeredBy(db, actor)
  const robots = await rows.listPrincipals(db, 'robot', last, limit + 1)
  const patterns = await grantedPatterns(
    db,
    robots.map(({ id }) => id),
  )
  const keep = ({ id }: rows.PrincipalRow): boolean => isWithin(patterns.get(id) ?? [])
  return pageOf(robots, limit, { key: ({ name }) => name, present: presentPrincipal, keep })
}

/**
 * Gives a robot a new secret; the former one ends `overlapMs` from now, with every session that began with it. @throws RegistryError DENIED, NOT_FOUND.
 */
export async function rotateRobot(
  context: AdministrationContext,
  actor: Actor,
  robot: { readonly name: string; readonly overlapMs: number },
): Promise<{ readonly name: string; readonly secret: string }> {
  const name = robotName(robot.name)
  const { secret, principalId } = await context.db.transaction(async tx => {
    const principalId = await requireRobotAdmin(tx, actor, name)
    const token = found(await findAccessToken(tx, principalId, TOKEN), `token of ${name}`)
    const made = await replaceSecret(tx, token.id, 'robot', robot.overlapMs)
    await record(tx, actor, 'robot.rotate', { robot: name, overlapSeconds: robot.overlapMs / 1000 })
    return { secret: made, principalId }
  })
  context.onPrincipalChanged(principalId)
  return { name, secret }
}

/** What of a robot can be changed. */
export interface RobotChange {
  readonly name: string
  readonly disabled?: boolean
  /** Null: it does not end by itself. */
  readonly expiresAt?: Date | null
}

/** Disables or enables a robot, or sets when it ends. @throws RegistryError DENIED, NOT_FOUND. */
export async function changeRobot(context: AdministrationContext, actor: Actor, change: RobotChange): Promise<void> {
  const name = robotName(change.name)
  const { disabled, expiresAt } = change
  const detail = { ...(disabled === undefined ? {} : { disabled }), ...(expiresAt === undefined ? {} : { expiresAt }) }
  const mayChange = (tx: Transaction) => requireRobotAdmin(tx, actor, name)
  await changePrincipal(context, actor, { kind: 'robot', name, act: 'change', detail, mayChange }, async (tx, id) => {
    const isThere = disabled === undefined || (await rows.setDisabled(tx, id, disabled))
    return isThere && (expiresAt === undefined || (await rows.setExpiry(tx, id, expiresAt ?? undefined)))
  })
}

/** Removes a robot with its secrets and grants. @throws RegistryError DENIED, NOT_FOUND. */
export async function deleteRobot(context: AdministrationContext, actor: Actor, robot: string): Promise<void> {
  const name = robotName(robot)
  const mayChange = (tx: Transaction) => requireRobotAdmin(tx, actor, name)
  await changePrincipal(context, actor, { kind: 'robot', name, act: 'delete', mayChange }, (tx, id) =>
    rows.deletePrincipal(tx, id),
  )
}

/**
 * Whoever administers everything that a robot was granted may change it; to others it is not there, because the refusal
 * would tell them what it was granted. Neither changes until the transaction ends. Answers the robot's id.
 * @throws RegistryError DENIED, NOT_FOUND.
 */
async function requireRobotAdmin(tx: Transaction, actor: Actor, name: string): Promise<number> {
  await lockAdministrators(tx)
  const isWithin = await administeredBy(tx, actor)
  const { id } = found(await rows.findPrincipal(tx, name), name)
  found(isWithin((await grantedPatterns(tx, [id])).get(id) ?? []) || undefined, name)
  return id
}
