import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { UseTimes } from '../../src/access/use-times.ts'
import { findPrincipal, insertPrincipal } from '../../src/metadata/principals.ts'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, startAccessApp } from '../support/access-app.ts'
import { withDatabase } from '../support/database.ts'

const SCOPES = ['repository:team/app:pull']

void suite('when a principal and its secret were last used', () => {
  let app: AccessApp

  before(async () => {
    app = await startAccessApp()
  })
  after(() => app.close())

  async function administer(method: string, path: string, body?: object): Promise<Readonly<Record<string, unknown>>> {
    const response = await fetch(`${app.url}/api/v1${path}`, {
      method,
      headers: { Authorization: basic('admin', PASSWORD), 'Content-Type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    assert.ok(response.ok, text)
    return JSON.parse(text) as Record<string, unknown>
  }

  async function lastUse(path: string, name: string): Promise<number | undefined> {
    await app.settle()
    const { items } = (await administer('GET', path)) as { items: { name: string; lastUsedAt: string | null }[] }
    const found = items.find(item => item.name === name)
    assert.ok(found !== undefined, JSON.stringify(items))
    return found.lastUsedAt === null ? undefined : Date.parse(found.lastUsedAt)
  }

  test('a robot is used by a login that is right, and neither by a wrong one nor by its access tokens', async () => {
    const robot = { name: 'ci', grants: [{ pattern: 'team/**', actions: ['pull'] }] }
    const { secret } = await administer('POST', '/robots', robot)
    const wrong = await fetch(`${app.url}/token`, {
      headers: { Authorization: basic('robot+ci', `${String(secret)}x`) },
    })
    assert.equal(wrong.status, 401)
    assert.equal(await lastUse('/robots', 'robot+ci'), undefined)
    const began = Date.now()
    const token = await fetchToken(app.url, SCOPES, basic('robot+ci', String(secret)))
    const used = await lastUse('/robots', 'robot+ci')
    assert.ok(used !== undefined && used >= began && used <= Date.now(), String(used))
    assert.equal((await fetch(`${app.url}/v2/`, { headers: { Authorization: `Bearer ${token}` } })).status, 200)
    assert.equal(await lastUse('/robots', 'robot+ci'), used)
    while (Date.now() <= used) await setImmediate()
    await fetchToken(app.url, SCOPES, basic('robot+ci', String(secret)))
    assert.ok(Number(await lastUse('/robots', 'robot+ci')) > used)
  })

  test('a personal access token is used by itself: not by the password, nor by another token of its user', async () => {
    await administer('POST', '/tokens', { name: 'unused' })
    const { secret } = await administer('POST', '/tokens', { name: 'laptop' })
    await fetchToken(app.url, SCOPES, basic('admin', PASSWORD))
    assert.equal(await lastUse('/tokens', 'laptop'), undefined)
    const began = Date.now()
    await fetchToken(app.url, SCOPES, basic('admin', String(secret)))
    const used = await lastUse('/tokens', 'laptop')
    assert.ok(used !== undefined && used >= began, String(used))
    assert.equal(await lastUse('/tokens', 'unused'), undefined)
    assert.ok(Number(await lastUse('/users', 'admin')) >= used)
  })
})

test('however many uses are one write, and none waits for it', async () => {
  const index = await withDatabase()
  try {
    const principalId = await index.db.transaction(tx =>
      insertPrincipal(tx, { kind: 'robot', name: 'robot+ci', createdBy: 'test' }),
    )
    assert.ok(principalId !== undefined)
    let writes = 0
    const db = Object.create(index.db, {
      transaction: {
        value: async (work: Parameters<typeof index.db.transaction>[0]) => {
          writes += 1
          return await index.db.transaction(work)
        },
      },
    }) as typeof index.db
    const errors: unknown[] = []
    const uses = new UseTimes(db, error => errors.push(error))
    for (let use = 0; use < 1_000; use += 1) uses.used(principalId, undefined)
    assert.equal(writes, 0)
    await uses.flush()
    await uses.flush()
    assert.deepEqual([writes, errors], [1, []])
    assert.ok((await findPrincipal(index.db, 'robot+ci'))?.last_used_at instanceof Date)
  } finally {
    await index.close()
  }
})
