import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../../support/access.ts'
import { type Api, apiOf, detailOf } from '../../support/api.ts'

const NEW_PASSWORD = `another ${PASSWORD}`

let server: AccessServer
let api: Api
before(async () => {
  server = await startAccessServer()
  api = apiOf(server)
})
after(() => server.stop())

void suite('users', () => {
  test('a password that is too short, a name that is taken and one that means everyone are refused', async () => {
    await api.makeUser('taken')
    assert.equal((await api.call('POST', '/users', { name: 'taken', password: PASSWORD })).status, 409)
    assert.match(detailOf(await api.call('POST', '/users', { name: 'short', password: 'too short' })), /12 characters/)
    for (const name of ['everyone', 'everyone-logged-in', 'robot+x', 'ci+x', 'Upper', 'a b', '$x', "x'", '-x']) {
      assert.equal((await api.call('POST', '/users', { name, password: PASSWORD })).status, 400, name)
    }
  })

  test('without a password one is made and shown once', async () => {
    const { body } = await api.call('POST', '/users', { name: 'generated' })
    const { generatedPassword } = body as { generatedPassword: string }
    const own = basic('generated', generatedPassword)
    assert.equal((await api.call('GET', '/tokens', undefined, own)).status, 200)
    assert.doesNotMatch(
      JSON.stringify([await api.list('/users'), await api.list('/audit')]),
      new RegExp(generatedPassword),
    )
  })

  test('users set their own password by showing the current one, and nobody else sets it (OWASP ASVS 6.2.3)', async () => {
    const own = await api.makeUser('own')
    const other = await api.makeUser('other')
    const set = async (as: string, body: object): Promise<number> =>
      (await api.call('PUT', '/users/own/password', body, as)).status
    assert.equal(await set(other, { password: NEW_PASSWORD, current: PASSWORD }), 403)
    assert.equal(await set(own, { password: NEW_PASSWORD }), 403)
    assert.equal(await set(own, { password: NEW_PASSWORD, current: 'a wrong password' }), 403)
    assert.equal(await set(own, { password: NEW_PASSWORD, current: PASSWORD }), 204)
    assert.equal((await api.call('GET', '/tokens', undefined, own)).status, 401)
    assert.equal((await api.call('GET', '/tokens', undefined, basic('own', NEW_PASSWORD))).status, 200)
  })
})

void suite('the last administrator stays', () => {
  test('also where it is one by a group, and a grant that replaces its own counts as taking it', async () => {
    const { administer } = server
    const byGroup = { subject: { kind: 'group', name: 'admins' }, pattern: '**', actions: ['admin'] }
    await administer('POST', '/groups', { name: 'admins' })
    await api.makeUser('deputy')
    await administer('PUT', '/groups/admins/members/deputy')
    const { id: groupGrant } = await administer('POST', '/grants', byGroup)
    const [own] = await api.list('/grants?principal=admin')
    assert.equal((await api.call('DELETE', `/grants/${String(own?.['id'])}`)).status, 204)

    const deputy = basic('deputy', PASSWORD)
    for (const [method, path, body] of [
      ['DELETE', '/users/deputy', undefined],
      ['PATCH', '/users/deputy', { disabled: true }],
      ['DELETE', '/groups/admins', undefined],
      ['DELETE', '/groups/admins/members/deputy', undefined],
      ['DELETE', `/grants/${String(groupGrant)}`, undefined],
      ['POST', '/grants', { ...byGroup, actions: ['pull'] }],
    ] as const) {
      assert.equal((await api.call(method, path, body, deputy)).status, 409, `${method} ${path}`)
    }
    const again = { subject: { kind: 'principal', name: 'admin' }, pattern: '**', actions: ['admin'] }
    assert.equal((await api.call('POST', '/grants', again, deputy)).status, 201)
    assert.equal((await api.call('DELETE', '/users/deputy')).status, 204)
  })

  test('of two administrators who remove each other at the same time one remains', async () => {
    for (let round = 0; round < 3; round += 1) {
      const [one, two] = [`rival-a${round}`, `rival-b${round}`]
      for (const name of [one, two]) await api.makeTeamAdmin(name, '**')
      await server.administer('PATCH', '/users/admin', { disabled: true })
      const [a, b] = await Promise.all([
        api.call('DELETE', `/users/${two}`, undefined, basic(one, PASSWORD)),
        api.call('DELETE', `/users/${one}`, undefined, basic(two, PASSWORD)),
      ])
      const names = (await server.administer('GET', '/users?limit=1000'))['items'] as { name: string }[]
      const left = names.filter(({ name }) => name === one || name === two)
      assert.equal(left.length, 1, `${a.status} ${b.status}`)
      await server.administer('PATCH', '/users/admin', { disabled: false })
      await server.administer('DELETE', `/users/${left[0]?.name ?? ''}`)
    }
  })
})

void suite('nobody gets more than he had', () => {
  test('who administers a part sees and manages that part, and learns nothing of the rest', async () => {
    const lead = await api.makeTeamAdmin('lead', 'part/**')
    const { body: outside } = await api.call('POST', '/grants', {
      subject: { kind: 'authenticated' },
      pattern: 'secret-name/**',
      actions: ['pull'],
    })
    await api.call('POST', '/robots', { name: 'within', grants: [{ pattern: 'part/x', actions: ['pull'] }] }, lead)
    await api.call('POST', '/robots', { name: 'beyond', grants: [{ pattern: 'secret-name/x', actions: ['pull'] }] })
    assert.deepEqual(
      (await api.list('/robots?limit=1', lead)).map(({ name }) => name),
      ['robot+within'],
    )
    assert.deepEqual(
      (await api.list('/grants?limit=1', lead)).map(({ pattern }) => pattern),
      ['part/**', 'part/x'],
    )
    const { id } = outside as { id: number }
    const refused = [
      await api.call('DELETE', `/grants/${id}`, undefined, lead),
      await api.call('DELETE', '/robots/beyond', undefined, lead),
      await api.call('POST', '/robots/beyond/secrets', {}, lead),
    ]
    for (const answer of refused) {
      assert.equal(answer.status, 404)
      assert.doesNotMatch(JSON.stringify(answer.body), /secret-name/)
    }
    const stranger = await api.makeUser('stranger')
    const denied = await api.call('DELETE', `/grants/${id}`, undefined, stranger)
    assert.equal(denied.status, 403)
    assert.doesNotMatch(JSON.stringify(denied.body), /secret-name/)
  })

  test('a robot that was put into a group with more is out of the reach of who made it', async () => {
    const lead = await api.makeTeamAdmin('maker', 'made/**')
    await api.call('POST', '/robots', { name: 'raised', grants: [{ pattern: 'made/x', actions: ['pull'] }] }, lead)
    await api.call('POST', '/groups', { name: 'raised' })
    await api.call('POST', '/grants', { subject: { kind: 'group', name: 'raised' }, pattern: '**', actions: ['push'] })
    assert.equal((await api.call('POST', '/robots/raised/secrets', {}, lead)).status, 201)
    await api.call('PUT', '/groups/raised/members/robot+raised')
    assert.equal((await api.call('POST', '/robots/raised/secrets', {}, lead)).status, 404)
  })

  test('everyone can be granted no more than pull, and everyone who logged in nothing of administration', async () => {
    const grant = async (kind: string, actions: readonly string[]): Promise<number> =>
      (await api.call('POST', '/grants', { subject: { kind }, pattern: 'open/**', actions })).status
    assert.equal(await grant('anonymous', ['pull']), 201)
    assert.equal(await grant('anonymous', ['pull', 'push']), 400)
    assert.equal(await grant('authenticated', ['push', 'delete']), 201)
    assert.equal(await grant('authenticated', ['admin']), 400)
  })

  test('patterns that are none are refused', async () => {
    for (const pattern of ['/x', 'x/', 'a//b', 'A/**', '../x', 'a**', 'a b', 'ä', '[a-z]']) {
      const grant = { subject: { kind: 'authenticated' }, pattern, actions: ['pull'] }
      assert.equal((await api.call('POST', '/grants', grant)).status, 400, pattern)
    }
  })

  test('what is refused stands in the audit, with who and what', async () => {
    const curious = await api.makeUser('curious')
    await api.call('POST', '/keys/rotation', { distrust: true }, curious)
    const [entry] = await api.list('/audit?actor=curious&kind=administration')
    assert.equal(entry?.['outcome'], 'refused')
    assert.deepEqual(entry?.['detail'], { act: 'rotateKeys', reason: 'this needs a grant of admin on **' })
    assert.match(String(entry?.['client']), /127\.0\.0\.1/)
  })
})

void suite('tokens', () => {
  test('a token that is deleted takes the access tokens with it that were issued for it', async () => {
    const own = await api.makeUser('forgetful')
    const grant = { subject: { kind: 'principal', name: 'forgetful' }, pattern: 'kept/**', actions: ['push'] }
    await api.call('POST', '/grants', grant)
    const { body } = await api.call('POST', '/tokens', { name: 'lost' }, own)
    const { secret } = body as { secret: string }
    const token = await fetchToken(server.url, ['repository:kept/x:pull,push'], basic('x', secret))
    const begin = async (): Promise<number> =>
      (
        await fetch(`${server.url}/v2/kept/x/blobs/uploads/`, {
          method: 'POST',
          headers: { Authorization: `Bearer ${token}` },
        })
      ).status
    assert.equal(await begin(), 202)
    assert.equal((await api.call('DELETE', '/tokens/lost', undefined, own)).status, 204)
    assert.equal(await begin(), 401)
    assert.equal((await api.call('GET', '/tokens', undefined, `Bearer ${secret}`)).status, 401)
  })

  test('a rotation without an overlap ends what the former secret got, one with an overlap does not', async () => {
    const { body } = await api.call('POST', '/robots', {
      name: 'turns',
      grants: [{ pattern: 'turn/x', actions: ['push'] }],
    })
    let { secret } = body as { secret: string }
    const begin = async (token: string): Promise<number> =>
      (
        await fetch(`${server.url}/v2/turn/x/blobs/uploads/`, {
          method: 'POST',
          headers: { Authorization: `Bearer ${token}` },
        })
      ).status
    for (const [overlapSeconds, status] of [
      [60, 202],
      [0, 401],
    ] as const) {
      const token = await fetchToken(server.url, ['repository:turn/x:pull,push'], basic('robot+turns', secret))
      assert.equal(await begin(token), 202)
      const rotated = await api.call('POST', '/robots/turns/secrets', { overlapSeconds })
      assert.equal(await begin(token), status)
      secret = (rotated.body as { secret: string }).secret
    }
  })

  test('a token says what it is narrowed to, when it was used and ends, and never its secret', async () => {
    const own = await api.makeUser('careful')
    const scopes = [{ pattern: 'mine/**', actions: ['pull'] }]
    const expiresAt = new Date(Date.now() + 60_000).toISOString()
    const { body } = await api.call('POST', '/tokens', { name: 'laptop', scopes, expiresAt }, own)
    const { secret } = body as { secret: string }
    assert.match(secret, /^berth_pat_/)
    const [token] = await api.list('/tokens', own)
    assert.deepEqual([token?.['scopes'], token?.['expiresAt'], token?.['secrets']], [scopes, expiresAt, 1])
    assert.doesNotMatch(JSON.stringify([token, await api.list('/audit')]), new RegExp(secret))
    assert.equal((await api.call('POST', '/tokens', { name: 'laptop' }, own)).status, 409)
  })
})

void suite('explanations', () => {
  test('a decision names the grant that made it, by a group and for everyone too', async () => {
    await api.makeUser('asked')
    await api.call('POST', '/groups', { name: 'readers' })
    await api.call('PUT', '/groups/readers/members/asked')
    const subject = { kind: 'group', name: 'readers' }
    const { body } = await api.call('POST', '/grants', { subject, pattern: 'books/*', actions: ['push'] })
    const { id } = body as { id: number }
    const explain = async (query: string): Promise<unknown> => (await api.call('GET', `/explain?${query}`)).body
    assert.deepEqual(await explain('principal=asked&action=pull&repository=books/one'), {
      allowed: true,
      reason: `grant ${id} (push on books/* to group readers) allows it`,
      grant: { id, subject, pattern: 'books/*', actions: ['push'] },
    })
    assert.deepEqual(await explain('principal=asked&action=pull&repository=books/one/two'), {
      allowed: false,
      reason: 'no grant to user asked allows pull on books/one/two',
    })
    assert.deepEqual(await explain('action=pull&repository=books/one'), {
      allowed: false,
      reason: 'no grant to everyone allows pull on books/one',
    })
    await api.call('PATCH', '/users/asked', { disabled: true })
    assert.deepEqual(await explain('principal=asked&action=pull&repository=books/one'), {
      allowed: false,
      reason: 'asked is disabled or has expired',
    })
  })

  test('a trust rule says claim by claim what a token misses', async () => {
    const rule = {
      name: 'web',
      issuer: 'https://token.actions.githubusercontent.com',
      audience: 'registry.example',
      claims: { repository_id: 42, repository_owner_id: 7 },
      grants: [{ pattern: 'ci/web', actions: ['push'] }],
    }
    assert.equal((await api.call('POST', '/trust-rules', rule)).status, 201)
    const claims = { iss: rule.issuer, aud: 'registry.example', repository_id: '42', repository_owner_id: '8' }
    const { body } = await api.call('POST', '/trust-tests', { claims })
    assert.deepEqual(body, {
      items: [
        {
          rule: 'web',
          matches: false,
          chosen: false,
          reason: 'it does not fit',
          checks: [
            { claim: 'iss', expected: rule.issuer, actual: rule.issuer, matches: true },
            { claim: 'aud', expected: 'registry.example', actual: 'registry.example', matches: true },
            { claim: 'repository_id', expected: '42', actual: '42', matches: true },
            { claim: 'repository_owner_id', expected: '7', actual: '8', matches: false },
          ],
        },
      ],
    })
  })

  test('of several trust rules that fit a token each says which one a login goes by, and why', async () => {
    const issuer = 'https://issuer.example'
    const audience = 'registry.example'
    const own = await api.makeTeamAdmin('chooser', 'choice/own')
    const rules: Readonly<Record<string, Record<string, string>>> = {
      'choice-wide': { team: 'a' },
      'choice-old': { team: 'a', ref: 'main' },
      'choice-new': { team: 'a', sha: 'c0ffee' },
    }
    for (const [name, claims] of Object.entries(rules)) {
      const pattern = name === 'choice-old' ? 'choice/other' : 'choice/own'
      const grants = [{ pattern, actions: ['push'] }]
      assert.equal((await api.call('POST', '/trust-rules', { name, issuer, audience, claims, grants })).status, 201)
    }
    const claims = { iss: issuer, aud: audience, team: 'a', ref: 'main', sha: 'c0ffee' }
    const explain = async (as: string, more: object = {}): Promise<unknown> => {
      const { body } = await api.call('POST', '/trust-tests', { claims: { ...claims, ...more } }, as)
      const { items } = body as { items: { rule: string; chosen: boolean; reason: string }[] }
      return items.map(({ rule, chosen, reason }) => `${rule} ${chosen}: ${reason}`)
    }
    assert.deepEqual(await explain(api.admin), [
      'choice-wide false: choice-old fits with more claims: log in as ci+choice-wide to be taken for this one',
      'choice-old true: of those that fit with the most claims (2) it is the oldest',
      'choice-new false: choice-old fits with as many claims and is older: log in as ci+choice-new to be taken for this one',
    ])
    // A rule that one may not see is there all the same, and stays unnamed.
    assert.deepEqual(await explain(own), [
      'choice-wide false: a rule of others fits with more claims: log in as ci+choice-wide to be taken for this one',
      'choice-new false: a rule of others fits with as many claims and is older: log in as ci+choice-new to be taken for this one',
    ])
    assert.deepEqual(await explain(own, { ref: 'other' }), [
      'choice-wide false: choice-new fits with more claims: log in as ci+choice-wide to be taken for this one',
      'choice-new true: of those that fit it has the most claims (2)',
    ])
    const named = await api.call('POST', '/trust-tests', { claims, user: 'choice-wide' }, own)
    const { items } = named.body as { items: { chosen: boolean; reason: string }[] }
    assert.deepEqual(
      items.map(({ chosen, reason }) => [chosen, reason]),
      [
        [true, 'the login names it'],
        [false, 'the login names choice-wide'],
      ],
    )
  })
})
