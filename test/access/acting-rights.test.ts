import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Actor } from '../../src/access/actor.ts'
import { type Administration, createAdministration } from '../../src/access/administration.ts'
import { NO_MIRRORS, LOCAL, withAdministration } from '../support/administration.ts'
import { verifyPassword } from '../../src/auth/passwords.ts'
import type { RegistryError } from '../../src/oci/errors.ts'
import { type TestDatabase, withDatabase } from '../support/database.ts'
import { wrapDatabase } from '../support/wrapped-database.ts'

const TEAM = 'team/**'
const subject = { kind: 'principal', name: 'lead' } as const

let database: TestDatabase
let local: Administration
/** What happens after an act was asked for, before its transaction begins. */
let between: (() => Promise<void>) | undefined
let admin: Administration
let lead: Actor

before(async () => {
  database = await withDatabase()
  local = withAdministration(database.db)
  const { db } = database
  const late = wrapDatabase(db, {
    async transaction(work) {
      const happens = between
      between = undefined
      await happens?.()
      return await db.transaction(work)
    },
  })
  admin = createAdministration({
    db: late,
    isOpen: false,
    confirmPassword: async () => undefined,
    keyLifetimes: { rotationMs: 1, longestTokenMs: 1 },
    onPrincipalChanged: () => undefined,
    onKeysChanged: () => undefined,
    onWorkRequested: () => undefined,
    mirrors: NO_MIRRORS,
    syncs: [],
    storage: { names: [], ownership: async () => 'unknown', adopt: async () => undefined },
  })
  // Somebody else administers, so that the one of the tests can lose it.
  await local.createUser(LOCAL, { name: 'root', password: 'a password of the tests' })
  await local.addGrant(LOCAL, { subject: { kind: 'principal', name: 'root' }, pattern: '**', actions: ['admin'] })
  await local.createUser(LOCAL, { name: 'lead', password: 'a password of the tests' })
  await proveAgain()
})
after(() => database.close())

/** The actor logs in anew. */
async function proveAgain(): Promise<void> {
  const [row] = await database.db.query<{ id: number; epoch: number }>(
    `select id, epoch from principal where name = 'lead'`,
  )
  assert.ok(row !== undefined)
  lead = { identity: { kind: 'user', name: 'lead', principalId: row.id, epoch: row.epoch }, source: LOCAL.source }
}

/** Lets the actor administer `pattern` and nothing else. */
async function give(pattern: string): Promise<void> {
  const { items } = await local.listGrants(LOCAL, { principal: 'lead' }, { last: '', limit: 100 })
  for (const { id } of items) await local.removeGrant(LOCAL, String(id))
  await local.addGrant(LOCAL, { subject, pattern, actions: ['admin'] })
}

const NO_GRANT = { pattern: 'nothing/here', actions: ['pull'] } as const
const grants = [{ pattern: 'team/app', actions: ['push'] }] as const
const rule = { issuer: 'https://issuer.example', audience: 'a', claims: { job: 'x' } }
const more = { singleUse: false, allowPullRequestTarget: false, sessionSeconds: 60, grants }

interface Act {
  readonly needs: string
  readonly prepare?: () => Promise<unknown>
  readonly act: () => Promise<unknown>
}

let grantId = ''
const ACTS: Readonly<Record<string, Act>> = {
  'making a robot': { needs: TEAM, act: () => admin.createRobot(lead, { name: 'new', grants }) },
  'rotating a robot': {
    needs: TEAM,
    prepare: () => local.createRobot(LOCAL, { name: 'rotated', grants }),
    act: () => admin.rotateRobot(lead, { name: 'rotated', overlapMs: 0 }),
  },
  'changing a robot': {
    needs: TEAM,
    prepare: () => local.createRobot(LOCAL, { name: 'changed', grants }),
    act: () => admin.changeRobot(lead, { name: 'changed', disabled: true }),
  },
  'removing a robot': {
    needs: TEAM,
    prepare: () => local.createRobot(LOCAL, { name: 'removed', grants }),
    act: () => admin.deleteRobot(lead, 'removed'),
  },
  granting: { needs: TEAM, act: () => admin.addGrant(lead, { subject, pattern: 'team/app', actions: ['push'] }) },
  'taking a grant back': {
    needs: TEAM,
    async prepare() {
      grantId = String(
        await local.addGrant(LOCAL, { subject: { kind: 'anonymous' }, pattern: TEAM, actions: ['pull'] }),
      )
    },
    act: () => admin.removeGrant(lead, grantId),
  },
  'trusting a CI system': { needs: TEAM, act: () => admin.createTrustRule(lead, { name: 'new', ...rule, ...more }) },
  'trusting it no more': {
    needs: TEAM,
    prepare: () => local.createTrustRule(LOCAL, { name: 'removed', ...rule, ...more }),
    act: () => admin.deleteTrustRule(lead, 'removed'),
  },
  'making a user': { needs: '**', act: () => admin.createUser(lead, { name: 'new', password: 'a new password' }) },
  'disabling a user': {
    needs: '**',
    prepare: () => local.createUser(LOCAL, { name: 'disabled', password: 'a new password' }),
    act: () => admin.setUserDisabled(lead, 'disabled', true),
  },
  'removing a user': {
    needs: '**',
    prepare: () => local.createUser(LOCAL, { name: 'removed', password: 'a new password' }),
    act: () => admin.deleteUser(lead, 'removed'),
  },
  'setting the password of another': {
    needs: '**',
    prepare: () => local.createUser(LOCAL, { name: 'reset', password: 'a new password' }),
    act: () => admin.setUserPassword(lead, { name: 'reset', password: 'a newer password' }),
  },
  'making a token for another': {
    needs: '**',
    prepare: () => local.createUser(LOCAL, { name: 'holder', password: 'a new password' }),
    act: () => admin.createToken(lead, { name: 'new', user: 'holder' }),
  },
  'making a group': { needs: '**', act: () => admin.createGroup(lead, 'new') },
  'removing a group': {
    needs: '**',
    prepare: () => local.createGroup(LOCAL, 'removed'),
    act: () => admin.deleteGroup(lead, 'removed'),
  },
  'joining a group': {
    needs: '**',
    prepare: () => local.createGroup(LOCAL, 'joined'),
    act: () => admin.addGroupMember(lead, { group: 'joined', member: 'lead' }),
  },
  'leaving a group': {
    needs: '**',
    async prepare() {
      await local.createGroup(LOCAL, 'left')
      await local.addGroupMember(LOCAL, { group: 'left', member: 'lead' })
    },
    act: () => admin.removeGroupMember(lead, { group: 'left', member: 'lead' }),
  },
  'rotating keys': { needs: '**', act: () => admin.rotateKeys(lead, false) },
}

void suite('rights are looked at where they are used (CWE-367)', () => {
  for (const [what, { needs, prepare, act }] of Object.entries(ACTS)) {
    test(`${what} is refused to who lost the right to it just before`, async () => {
      await prepare?.()
      await give(needs)
      between = () => give(NO_GRANT.pattern)
      await assert.rejects(act(), (error: Error) => {
        assert.match(error.message, /this needs a grant of admin|there is no /)
        return true
      })
      assert.equal(between, undefined, 'the act came to its transaction')
      // It is the right that was missing.
      await give(needs)
      await act()
    })
  }

  for (const [what, { needs, prepare, act }] of Object.entries(ACTS)) {
    test(`${what} is refused to who was disabled just before`, async () => {
      await prepare?.().catch(() => undefined) // it is there since the test before
      await give(needs)
      between = () => local.setUserDisabled(LOCAL, 'lead', true)
      await assert.rejects(act(), /not valid any more/)
      assert.equal(between, undefined, 'the act came to its transaction')
      await local.setUserDisabled(LOCAL, 'lead', false)
      await proveAgain()
    })
  }

  test('nothing is done for a token that was taken back just before', async () => {
    await give('**')
    await local.createToken(LOCAL, { name: 'shown', user: 'lead' })
    const [secret] = await database.db.query<{ id: number }>(
      `select s.id from token_secret s join access_token t on t.id = s.token_id where t.name = 'shown'`,
    )
    assert.ok(secret !== undefined)
    const byToken: Actor = { ...lead, identity: { ...lead.identity, secretId: secret.id } }
    between = () => local.deleteToken(LOCAL, { name: 'shown', user: 'lead' })
    await assert.rejects(admin.createGroup(byToken, 'by-token'), /not valid any more/)
    const other = await local.listGroups(LOCAL, { last: '', limit: 100 })
    assert.ok(!other.items.some(({ name }) => name === 'by-token'))
  })

  test('a password that an administrator sets while its user sets another stays', async () => {
    await give('**')
    between = () => local.setUserPassword(LOCAL, { name: 'lead', password: 'set by an administrator' })
    const own = admin.setUserPassword(lead, { name: 'lead', password: 'set by the user', current: 'the former one' })
    await assert.rejects(own, (error: RegistryError) => error.code === 'CONFLICT')
    const [row] = await database.db.query<{ hash: string }>(
      `select password_hash as hash from principal where name = 'lead'`,
    )
    assert.ok(await verifyPassword('set by an administrator', row?.hash ?? '', 'test'))
    await proveAgain()
  })

  test('a robot that got more just before is out of reach of who administers less', async () => {
    await local.createRobot(LOCAL, { name: 'grew', grants })
    await give(TEAM)
    const robot = { kind: 'principal', name: 'robot+grew' } as const
    between = async () => void (await local.addGrant(LOCAL, { subject: robot, pattern: 'other/**', actions: ['push'] }))
    await assert.rejects(admin.rotateRobot(lead, { name: 'grew', overlapMs: 0 }), /there is no robot\+grew/)
  })
})
