import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, startAccessServer } from '../../support/access.ts'
import { type Api, apiOf, detailOf } from '../../support/api.ts'

let server: AccessServer
let api: Api
before(async () => {
  server = await startAccessServer()
  api = apiOf(server)
})
after(() => server.stop())

void suite('how the API speaks', () => {
  test('a refusal is a problem document that says what is wrong and which request it was (RFC 9457)', async () => {
    const response = await fetch(`${server.url}/api/v1/users/nobody`, {
      method: 'DELETE',
      headers: { Authorization: api.admin },
    })
    assert.equal(response.status, 404)
    assert.equal(response.headers.get('content-type'), 'application/problem+json')
    assert.deepEqual(await response.json(), {
      type: 'about:blank',
      title: 'there is no such thing',
      status: 404,
      detail: 'there is no user nobody',
      code: 'NOT_FOUND',
      requestId: response.headers.get('x-request-id'),
    })
  })

  test('paths and methods that are not there are refused in the same form', async () => {
    for (const [method, path, status] of [
      ['GET', '/nothing', 404],
      ['PUT', '/users', 405],
    ] as const) {
      const answer = await api.call(method, path)
      assert.equal(answer.status, status)
      assert.equal(answer.headers.get('content-type'), 'application/problem+json')
    }
    assert.match((await api.call('PUT', '/users')).headers.get('allow') ?? '', /POST/)
  })

  test('every fault of an input is named at once, unknown fields and parameters with them', async () => {
    const answer = await api.call('POST', '/robots', {
      name: '',
      grants: [{ pattern: '**', actions: ['own'] }],
      admin: true,
    })
    assert.equal(answer.status, 400)
    for (const part of [/body\.name/, /body\.grants\.0\.actions\.0/, /"admin"/]) assert.match(detailOf(answer), part)
    assert.match(detailOf(await api.call('GET', '/users?limit=0&sort=name')), /query\.limit.*"sort"/)
  })

  test('only JSON is taken, so that no page of another site can make a browser administer (CWE-352)', async () => {
    const send = async (type: string, body: string): Promise<number> => {
      const headers = { Authorization: api.admin, 'Content-Type': type }
      return (await fetch(`${server.url}/api/v1/groups`, { method: 'POST', headers, body })).status
    }
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      assert.equal(await send(type, '{"name":"forged"}'), 415, type)
      assert.equal(await send(type, ''), 415, type)
    }
    assert.equal(await send('application/json; charset=utf-8', '{"name":"meant"}'), 201)
    assert.equal(await send('application/json', '{"name":'), 400)
    assert.deepEqual(
      (await api.list('/groups')).map(({ name }) => name),
      ['meant'],
    )
  })

  test('a body beyond the bound is refused without being read to its end', async () => {
    const { status, body } = await api.call('POST', '/groups', { name: 'x'.repeat(300 * 1024) })
    assert.equal(status, 413)
    assert.equal((body as { code: string }).code, 'INVALID')
  })

  test('lists are pages with a Link to the next that keeps what was asked for (RFC 8288)', async () => {
    const names = ['page-a', 'page-b', 'page-c', 'page-d', 'page-e']
    for (const name of names) await api.makeUser(name)
    const first = await api.call('GET', '/users?last=page-&limit=2')
    assert.equal(first.headers.get('link'), '</api/v1/users?last=page-b&limit=2>; rel="next"')
    assert.equal((first.body as { next: string }).next, 'page-b')
    assert.equal(first.headers.get('cache-control'), 'no-store')
    assert.deepEqual(
      (await api.list('/users?limit=2&last=page-')).map(({ name }) => name),
      names,
    )
    assert.equal((await api.call('GET', '/users?last=page-d&limit=1')).headers.get('link'), null)
  })

  test('the audit is read page by page, newest first, by actor and kind', async () => {
    const found = await api.list('/audit?kind=user.create&actor=admin&limit=2')
    assert.ok(found.length > 4)
    assert.deepEqual(
      found.map(({ id }) => id),
      found.map(({ id }) => Number(id)).toSorted((a, b) => b - a),
    )
    assert.ok(found.every(({ kind, actor }) => kind === 'user.create' && actor === 'admin'))
  })
})
