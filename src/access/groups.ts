import type { Transaction } from '../metadata/database.ts'
import * as rows from '../metadata/groups.ts'
import { findPrincipal } from '../metadata/principals.ts'
import { type Actor, type AdministrationContext, asAdmin, keepingAdministrator, record, requireAdmin } from './actor.ts'
import { checkName, found, unlessTaken } from './names.ts'
import { type Page, type PageRequest, pageOf } from './page.ts'

/** Adds a group. @throws RegistryError DENIED, INVALID, CONFLICT. */
export async function createGroup(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  await asAdmin(context.db, actor, [], async tx => {
    checkName(name, 'group')
    unlessTaken(await rows.insertGroup(tx, { name }), `group ${name}`)
    await record(tx, actor, 'group.create', { group: name })
  })
}

/** Groups by name. @throws RegistryError DENIED. */
export async function listGroups(
  context: AdministrationContext,
  actor: Actor,
  { last, limit }: PageRequest,
): Promise<Page<{ readonly name: string; readonly createdAt: Date }>> {
  await requireAdmin(context.db, actor)
  const present = ({ name, created_at: createdAt }: rows.GroupRow) => ({ name, createdAt })
  return pageOf(await rows.listGroups(context.db, last, limit + 1), limit, { key: ({ name }) => name, present })
}

/** Removes a group with its grants. @throws RegistryError DENIED, NOT_FOUND, CONFLICT. */
export async function deleteGroup(context: AdministrationContext, actor: Actor, name: string): Promise<void> {
  await asAdmin(context.db, actor, [], async tx => {
    const group = found(await rows.findGroup(tx, name), `group ${name}`)
    await keepingAdministrator(tx, () => rows.deleteGroup(tx, group.id))
    await record(tx, actor, 'group.delete', { group: name })
  })
}

/** Puts a principal into a group; being in it already is success. @throws RegistryError DENIED, NOT_FOUND. */
export async function addGroupMember(
  context: AdministrationContext,
  actor: Actor,
  membership: Membership,
): Promise<void> {
  await asAdmin(context.db, actor, [], async tx => {
    const { groupId, memberId } = await idsOf(tx, membership)
    await rows.addMember(tx, groupId, memberId)
    await record(tx, actor, 'group.add', { ...membership })
  })
}

/** Takes a principal out of a group. @throws RegistryError DENIED, NOT_FOUND, CONFLICT. */
export async function removeGroupMember(
  context: AdministrationContext,
  actor: Actor,
  membership: Membership,
): Promise<void> {
  await asAdmin(context.db, actor, [], async tx => {
    const { groupId, memberId } = await idsOf(tx, membership)
    const gone = await keepingAdministrator(tx, () => rows.removeMember(tx, groupId, memberId))
    found(gone || undefined, `member ${membership.member} of group ${membership.group}`)
    await record(tx, actor, 'group.remove', { ...membership })
  })
}

/** Members of a group by name. @throws RegistryError DENIED, NOT_FOUND. */
export async function listGroupMembers(
  context: AdministrationContext,
  actor: Actor,
  name: string,
  { last, limit }: PageRequest,
): Promise<Page<{ readonly name: string; readonly kind: string }>> {
  await requireAdmin(context.db, actor)
  const group = found(await rows.findGroup(context.db, name), `group ${name}`)
  const members = await rows.listMembers(context.db, group.id, last, limit + 1)
  return pageOf(members, limit, { key: member => member.name, present: member => member })
}

interface Membership {
  readonly group: string
  readonly member: string
}

/** @throws RegistryError NOT_FOUND. */
async function idsOf(tx: Transaction, { group, member }: Membership): Promise<{ groupId: number; memberId: number }> {
  const { id: groupId } = found(await rows.findGroup(tx, group), `group ${group}`)
  const { id: memberId } = found(await findPrincipal(tx, member), `principal ${member}`)
  return { groupId, memberId }
}
