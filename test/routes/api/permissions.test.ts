import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../../support/access.ts'
import { ENDPOINTS, callApi } from '../../support/api.ts'

/** Who calls: each is refused what the next may. `narrow` and `scoped` are tokens of the administrator. */
const ACTORS = ['plain', 'team', 'robot', 'scoped', 'narrow', 'root', 'token'] as const
type ActorName = (typeof ACTORS)[number]
type Statuses = readonly [number, number, number, number, number, number, number]

const REGISTRY_ONLY = (status: number): Statuses => [403, 403, 403, 403, 403, status, status]
const TEAM_TOO = (status: number): Statuses => [403, status, status, status, 403, status, status]
const HIDDEN_FROM_TEAM = (status: number): Statuses => [403, 404, 404, 404, 403, status, status]

/** Whoever may pull in team-a: also by a token that allows nothing else. */
const PULLERS = (status: number): Statuses => [403, status, status, status, status, status, status]

interface Row {
  /** Method and path of the endpoint, as declared. */
  readonly endpoint: string
  readonly path?: string
  readonly body?: (actor: ActorName) => object
  /** In the order of {@link ACTORS}. */
  readonly statuses: Statuses
}

const pull = (pattern: string): object[] => [{ pattern, actions: ['pull'] }]
const trustRule = (name: string, pattern: string): object => ({
  name,
  issuer: 'https://issuer.example',
  audience: 'registry.example',
  claims: { sub: 'job' },
  grants: pull(pattern),
})

const policy = (pattern: string): object => ({ pattern, rules: [{ keep: 'newest', count: 10 }] })

// What succeeds changes nothing that another row looks at: names that do not exist, or one for each actor.
const ROWS: readonly Row[] = [
  { endpoint: 'get /mirrors', statuses: TEAM_TOO(200) },
  { endpoint: 'get /mirrors/*prefix', path: '/mirrors/team-a', statuses: TEAM_TOO(404) },
  { endpoint: 'post /mirrors', body: () => ({ prefix: 'NO', url: 'https://a.example' }), statuses: REGISTRY_ONLY(400) },
  { endpoint: 'patch /mirrors/*prefix', path: '/mirrors/team-a', body: () => ({}), statuses: REGISTRY_ONLY(404) },
  { endpoint: 'delete /mirrors/*prefix', path: '/mirrors/team-a', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'post /mirror-tests', body: () => ({ prefix: 'team-a' }), statuses: TEAM_TOO(404) },
  { endpoint: 'get /syncs', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /syncs/:name/runs', body: () => ({}), statuses: REGISTRY_ONLY(404) },
  { endpoint: 'delete /syncs/:name/run', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'get /sync-runs', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'get /sync-runs/:id', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'get /sync-runs/:id/items', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'get /storage', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /storage/adoption', statuses: REGISTRY_ONLY(204) },
  { endpoint: 'get /storage/copy/plan', path: '/storage/copy/plan?to=filesystem', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /storage/copy', body: () => ({ to: 'nowhere' }), statuses: REGISTRY_ONLY(400) },
  { endpoint: 'get /storage/copy', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'delete /storage/copy', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'post /users', body: () => ({ name: 'NO NAME' }), statuses: REGISTRY_ONLY(400) },
  { endpoint: 'get /users', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'patch /users/:name', body: () => ({ disabled: false }), statuses: REGISTRY_ONLY(404) },
  { endpoint: 'put /users/:name/password', body: () => ({ password: PASSWORD }), statuses: REGISTRY_ONLY(404) },
  { endpoint: 'delete /users/:name', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'post /groups', body: () => ({ name: 'NO NAME' }), statuses: REGISTRY_ONLY(400) },
  { endpoint: 'get /groups', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'delete /groups/:name', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'get /groups/:name/members', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'put /groups/:name/members/:member', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'delete /groups/:name/members/:member', statuses: REGISTRY_ONLY(404) },
  {
    endpoint: 'post /robots',
    body: actor => ({ name: `inside-${actor}`, grants: pull('team-a/web') }),
    statuses: TEAM_TOO(201),
  },
  {
    endpoint: 'post /robots',
    body: actor => ({ name: `both-${actor}`, grants: [...pull('team-a/web'), ...pull('team-b/web')] }),
    statuses: REGISTRY_ONLY(201),
  },
  { endpoint: 'post /robots', body: actor => ({ name: `bare-${actor}`, grants: [] }), statuses: REGISTRY_ONLY(201) },
  { endpoint: 'get /robots', statuses: TEAM_TOO(200) },
  { endpoint: 'post /robots/:name/secrets', path: '/robots/inside/secrets', body: () => ({}), statuses: TEAM_TOO(201) },
  {
    endpoint: 'post /robots/:name/secrets',
    path: '/robots/outside/secrets',
    body: () => ({}),
    statuses: HIDDEN_FROM_TEAM(201),
  },
  {
    endpoint: 'patch /robots/:name',
    path: '/robots/inside',
    body: () => ({ disabled: false }),
    statuses: TEAM_TOO(204),
  },
  {
    endpoint: 'patch /robots/:name',
    path: '/robots/outside',
    body: () => ({ disabled: false }),
    statuses: HIDDEN_FROM_TEAM(204),
  },
  { endpoint: 'delete /robots/:name', statuses: TEAM_TOO(404) },
  {
    endpoint: 'post /tokens',
    body: actor => ({ name: `of-${actor}` }),
    statuses: [201, 201, 404, 403, 403, 201, 403],
  },
  {
    endpoint: 'post /tokens',
    body: actor => ({ name: `for-admin-${actor}`, user: 'admin' }),
    statuses: [403, 403, 403, 403, 403, 201, 403],
  },
  { endpoint: 'get /tokens', statuses: [200, 200, 404, 403, 403, 200, 200] },
  { endpoint: 'get /tokens', path: '/tokens?user=admin', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /tokens/:name/secrets', body: () => ({}), statuses: [404, 404, 404, 403, 403, 404, 403] },
  { endpoint: 'delete /tokens/:name', statuses: [404, 404, 404, 403, 403, 404, 404] },
  {
    endpoint: 'post /trust-rules',
    body: actor => trustRule(`inside-${actor}`, 'team-a/web'),
    statuses: TEAM_TOO(201),
  },
  {
    endpoint: 'post /trust-rules',
    body: actor => trustRule(`outside-${actor}`, '**'),
    statuses: REGISTRY_ONLY(201),
  },
  { endpoint: 'get /trust-rules', statuses: TEAM_TOO(200) },
  {
    endpoint: 'post /trust-tests',
    body: () => ({ claims: { iss: 'https://issuer.example' } }),
    statuses: TEAM_TOO(200),
  },
  { endpoint: 'delete /trust-rules/:name', statuses: TEAM_TOO(404) },
  {
    endpoint: 'delete /trust-rules/:name',
    path: '/trust-rules/outside',
    statuses: [403, 404, 404, 404, 403, 204, 404],
  },
  {
    endpoint: 'post /grants',
    body: () => ({ subject: { kind: 'authenticated' }, pattern: 'team-a/shared', actions: ['pull'] }),
    statuses: TEAM_TOO(201),
  },
  {
    endpoint: 'post /grants',
    body: () => ({ subject: { kind: 'principal', name: 'team' }, pattern: 'team-*/**', actions: ['pull'] }),
    statuses: REGISTRY_ONLY(201),
  },
  { endpoint: 'get /grants', statuses: TEAM_TOO(200) },
  { endpoint: 'delete /grants/:id', path: '/grants/999999', statuses: TEAM_TOO(404) },
  {
    endpoint: 'get /explain',
    path: '/explain?principal=plain&action=pull&repository=team-a/web',
    statuses: [200, 200, 200, 200, 403, 200, 200],
  },
  {
    endpoint: 'get /explain',
    path: '/explain?principal=plain&action=pull&repository=team-b/web',
    statuses: [200, 403, 403, 403, 403, 200, 200],
  },
  { endpoint: 'get /explain', path: '/explain?action=pull&repository=team-b/web', statuses: REGISTRY_ONLY(200) },
  // Lists of repositories show everybody his own.
  { endpoint: 'get /repositories', statuses: [200, 200, 200, 200, 200, 200, 200] },
  { endpoint: 'get /deleted-repositories', statuses: [200, 200, 200, 200, 200, 200, 200] },
  { endpoint: 'get /repositories/*name', path: '/repositories/team-a/none', statuses: PULLERS(404) },
  { endpoint: 'delete /repositories/*name', path: '/repositories/team-a%2Fnone', statuses: TEAM_TOO(404) },
  { endpoint: 'delete /repositories/*name', path: '/repositories/team-b/none', statuses: REGISTRY_ONLY(404) },
  {
    endpoint: 'post /repository-undeletions',
    body: () => ({ repository: 'team-a/none' }),
    statuses: TEAM_TOO(404),
  },
  {
    endpoint: 'post /manifest-deletions',
    body: () => ({ repository: 'team-a/none', reference: 'v1', force: true }),
    statuses: TEAM_TOO(404),
  },
  {
    endpoint: 'post /undeletions',
    body: () => ({ repository: 'team-a/none', reference: 'v1' }),
    statuses: TEAM_TOO(404),
  },
  { endpoint: 'get /tag-history', path: '/tag-history?repository=team-a/none&tag=v1', statuses: PULLERS(404) },
  {
    endpoint: 'post /tag-rollbacks',
    body: () => ({ repository: 'team-a/none', tag: 'v1' }),
    statuses: TEAM_TOO(404),
  },
  {
    endpoint: 'post /tag-rules',
    body: () => ({ pattern: 'team-a/**', tags: 'v*', immutable: true }),
    statuses: TEAM_TOO(201),
  },
  {
    endpoint: 'post /tag-rules',
    body: () => ({ pattern: 'team-*/**', tags: 'v*', immutable: true }),
    statuses: REGISTRY_ONLY(201),
  },
  { endpoint: 'get /tag-rules', statuses: TEAM_TOO(200) },
  { endpoint: 'delete /tag-rules/:name', statuses: TEAM_TOO(404) },
  { endpoint: 'delete /tag-rules/:name', path: '/tag-rules/outside', statuses: [403, 404, 404, 404, 403, 204, 404] },
  { endpoint: 'get /keys', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /keys/rotation', body: () => ({}), statuses: REGISTRY_ONLY(204) },
  { endpoint: 'get /audit', statuses: REGISTRY_ONLY(200) },
  {
    endpoint: 'put /retention-policies/:name',
    path: '/retention-policies/inside',
    body: () => policy('team-a/web'),
    statuses: TEAM_TOO(200),
  },
  {
    endpoint: 'put /retention-policies/:name',
    path: '/retention-policies/wide',
    body: () => policy('team-*/**'),
    statuses: REGISTRY_ONLY(200),
  },
  {
    endpoint: 'put /retention-policies/:name',
    path: '/retention-policies/taken',
    body: () => policy('team-a/web'),
    statuses: [403, 409, 409, 409, 403, 200, 200],
  },
  { endpoint: 'get /retention-policies', statuses: TEAM_TOO(200) },
  { endpoint: 'delete /retention-policies/:name', statuses: TEAM_TOO(404) },
  {
    endpoint: 'delete /retention-policies/:name',
    path: '/retention-policies/hidden',
    statuses: [403, 404, 404, 404, 403, 204, 404],
  },
  {
    endpoint: 'post /retention-policies/:name/runs',
    path: '/retention-policies/inside/runs',
    body: () => ({ goal: 'plan' }),
    statuses: TEAM_TOO(201),
  },
  {
    endpoint: 'post /retention-policies/:name/runs',
    path: '/retention-policies/outside/runs',
    body: () => ({ goal: 'run', confirmed: true }),
    statuses: HIDDEN_FROM_TEAM(201),
  },
  { endpoint: 'get /retention-runs', statuses: TEAM_TOO(200) },
  { endpoint: 'get /retention-runs/:id', statuses: TEAM_TOO(404) },
  // The first run is one of `outside`.
  { endpoint: 'get /retention-runs/:id', path: '/retention-runs/1', statuses: HIDDEN_FROM_TEAM(200) },
  {
    endpoint: 'get /retention-runs/:id/repositories',
    path: '/retention-runs/1/repositories',
    statuses: HIDDEN_FROM_TEAM(200),
  },
  { endpoint: 'get /retention-runs/:id/items', path: '/retention-runs/1/items', statuses: HIDDEN_FROM_TEAM(200) },
  {
    endpoint: 'post /retention-runs/:id/confirmation',
    path: '/retention-runs/1/confirmation',
    statuses: HIDDEN_FROM_TEAM(409),
  },
  { endpoint: 'get /pulls', path: '/pulls?repository=team-a/web', statuses: TEAM_TOO(404) },
  { endpoint: 'get /pulls', path: '/pulls?repository=team-b/web', statuses: REGISTRY_ONLY(404) },
  { endpoint: 'post /collection/runs', body: () => ({}), statuses: REGISTRY_ONLY(201) },
  { endpoint: 'get /collection', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'get /collection/due', path: '/collection/due?kind=link', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'post /verification/runs', body: () => ({}), statuses: REGISTRY_ONLY(201) },
  { endpoint: 'get /verification', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'get /verification/damaged', statuses: REGISTRY_ONLY(200) },
  { endpoint: 'get /usage', path: '/usage?pattern=team-a/**', statuses: TEAM_TOO(200) },
  { endpoint: 'get /usage/total', statuses: REGISTRY_ONLY(200) },
  // A project must not widen its own limit.
  {
    endpoint: 'put /quotas/:measure/:pattern',
    path: '/quotas/logical/team-a%2F**',
    body: () => ({ limitBytes: 1_000_000 }),
    statuses: REGISTRY_ONLY(200),
  },
  {
    endpoint: 'put /quotas/:measure/:pattern',
    path: '/quotas/logical/team-b%2F**',
    body: () => ({ limitBytes: 1_000_000 }),
    statuses: REGISTRY_ONLY(200),
  },
  { endpoint: 'get /quotas', statuses: TEAM_TOO(200) },
  { endpoint: 'get /quotas/:measure/:pattern', path: '/quotas/logical/team-a%2F**', statuses: TEAM_TOO(200) },
  { endpoint: 'get /quotas/:measure/:pattern', path: '/quotas/logical/team-b%2F**', statuses: HIDDEN_FROM_TEAM(200) },
  {
    endpoint: 'get /quotas/:measure/:pattern',
    path: '/quotas/other/team-b%2F**',
    statuses: [400, 400, 400, 400, 400, 400, 400],
  },
  { endpoint: 'delete /quotas/:measure/:pattern', path: '/quotas/logical/team-c%2F**', statuses: REGISTRY_ONLY(404) },
]

const methodOf = (row: Row): string => (row.endpoint.split(' ')[0] ?? '').toUpperCase()
const pathOf = (row: Row): string =>
  row.path ?? (row.endpoint.split(' ')[1] ?? '').replaceAll(/:[a-z]+/g, 'nobody-of-this-name')

void suite('who may administer what (NIST SP 800-53 AC-6, least privilege)', () => {
  let server: AccessServer
  const credentials = new Map<ActorName, string>()

  before(async () => {
    server = await startAccessServer()
    const { administer } = server
    for (const name of ['plain', 'team']) await administer('POST', '/users', { name, password: PASSWORD })
    const teamA = [{ pattern: 'team-a/**', actions: ['admin'] }]
    const secretOf = async (path: string, body: object): Promise<string> =>
      String((await administer('POST', path, body))['secret'])
    await administer('POST', '/grants', { subject: { kind: 'principal', name: 'team' }, ...teamA[0] })
    await secretOf('/robots', { name: 'inside', grants: pull('team-a/web') })
    await secretOf('/robots', { name: 'outside', grants: [...pull('team-a/web'), ...pull('team-b/web')] })
    await administer('POST', '/trust-rules', trustRule('outside', 'team-b/web'))
    await administer('POST', '/tag-rules', { name: 'outside', pattern: 'team-b/web', tags: '*', immutable: true })
    for (const name of ['outside', 'taken', 'hidden']) {
      await administer('PUT', `/retention-policies/${name}`, policy('team-b/web'))
    }
    assert.deepEqual(await administer('POST', '/retention-policies/outside/runs', { goal: 'run' }), { id: 1 })
    const token = async (name: string, scopes?: object): Promise<string> =>
      `Bearer ${await secretOf('/tokens', { user: 'admin', name, ...(scopes === undefined ? {} : { scopes }) })}`
    credentials.set('plain', basic('plain', PASSWORD))
    credentials.set('team', basic('team', PASSWORD))
    credentials.set('robot', `Bearer ${await secretOf('/robots', { name: 'team', grants: teamA })}`)
    credentials.set('scoped', await token('scoped', teamA))
    credentials.set('narrow', await token('narrow', pull('**')))
    credentials.set('root', basic('admin', PASSWORD))
    credentials.set('token', await token('wide'))
  })
  after(() => server.stop())

  test('the table names every endpoint', () => {
    assert.deepEqual(
      [...new Set(ROWS.map(({ endpoint }) => endpoint))].toSorted(),
      ENDPOINTS.map(({ method, path }) => `${method} ${path}`).toSorted(),
    )
  })

  for (const row of ROWS) {
    const expected = ACTORS.map((actor, index) => `${actor} ${row.statuses[index]}`).join(', ')
    test(`${methodOf(row)} ${pathOf(row)}: ${expected}`, async () => {
      const found: number[] = []
      for (const actor of ACTORS) {
        const answer = await callApi(server.url, credentials.get(actor), methodOf(row), pathOf(row), row.body?.(actor))
        found.push(answer.status)
        const declared = ENDPOINTS.find(({ method, path }) => `${method} ${path}` === row.endpoint)
        // Every answer is what the OpenAPI document says, with nothing beside it.
        if (answer.status < 300) assert.deepEqual(declared?.answer?.parse(answer.body), answer.body)
      }
      assert.deepEqual(found, [...row.statuses])
    })
  }

  test('nobody is anybody without credentials that the API takes, and is told which (RFC 9110 section 15.5.2)', async () => {
    const accessToken = await fetchToken(server.url, ['registry:catalog:*'], basic('admin', PASSWORD))
    const wrong = {
      'nothing shown': undefined,
      'a wrong password': basic('admin', `${PASSWORD}!`),
      'an access token of the registry, which is for another audience': `Bearer ${accessToken}`,
      'another scheme': 'Digest username="admin"',
    }
    for (const [what, authorization] of Object.entries(wrong)) {
      // Wrong guesses are limited, so only nothing at all is shown to every endpoint.
      for (const row of authorization === undefined ? ROWS : ROWS.slice(0, 1)) {
        const { status, headers } = await callApi(
          server.url,
          authorization,
          methodOf(row),
          pathOf(row),
          row.body?.('plain'),
        )
        assert.equal(status, 401, `${what}: ${row.endpoint}`)
        assert.match(headers.get('www-authenticate') ?? '', /^Basic realm="berth"/, what)
      }
    }
  })
})
