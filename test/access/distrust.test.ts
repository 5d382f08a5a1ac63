import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'

void suite('rotating the keys that sign tokens (RFC 8725 section 3.1)', () => {
  let server: AccessServer

  before(async () => {
    server = await startAccessServer()
  })
  after(() => server.stop())

  const admin = basic('admin', PASSWORD)
  const statusBy = async (token: string): Promise<number> =>
    (await fetch(`${server.url}/v2/`, { headers: { Authorization: `Bearer ${token}` } })).status

  test('an ordinary rotation leaves tokens good, and distrust ends them, also those that were used before', async () => {
    const first = await fetchToken(server.url, [], admin)
    assert.equal(await statusBy(first), 200)
    await server.administer('POST', '/keys/rotation', { distrust: false })
    assert.equal(await statusBy(first), 200)
    const second = await fetchToken(server.url, [], admin)
    assert.equal(await statusBy(second), 200)
    await server.administer('POST', '/keys/rotation', { distrust: true })
    assert.equal(await statusBy(second), 401)
    assert.equal(await statusBy(await fetchToken(server.url, [], admin)), 200)
  })

  test('the upload that a distrusted key allowed ends with it', async () => {
    const started = await fetch(`${server.url}/v2/team/app/blobs/uploads/`, {
      method: 'POST',
      headers: { Authorization: admin },
    })
    const location = new URL(started.headers.get('location') ?? '', server.url)
    await server.administer('POST', '/keys/rotation', { distrust: true })
    assert.equal((await fetch(location, { method: 'PATCH', body: 'x' })).status, 401)
  })
})
