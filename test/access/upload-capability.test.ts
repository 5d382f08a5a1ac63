import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { PASSWORD, basic, fetchToken } from '../support/access.ts'
import { type AccessApp, TOKEN_LIFETIME_MS, UPLOAD_EXPIRY_MS, startAccessApp } from '../support/access-app.ts'

const REPOSITORY = 'team/app'
const SCOPE = `repository:${REPOSITORY}:pull,push`
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const HOUR_MS = 3_600_000

void suite('an upload goes on by its Location (moby/moby #33558)', () => {
  let app: AccessApp

  before(async () => {
    app = await startAccessApp()
  })
  after(() => app.close())

  const freshToken = async (): Promise<string> =>
    `Bearer ${await fetchToken(app.url, [SCOPE], basic('admin', PASSWORD))}`

  const send = async (
    method: string,
    where: URL,
    init: { readonly body?: string | Buffer; readonly headers?: Readonly<Record<string, string>> } = {},
  ): Promise<Response> => {
    const response = await fetch(where, { method, ...init, headers: { ...init.headers } })
    await response.arrayBuffer()
    return response
  }

  const location = (response: Response): URL => new URL(response.headers.get('location') ?? '', app.url)

  async function begin(authorization: string): Promise<URL> {
    const begun = await send('POST', new URL(`/v2/${REPOSITORY}/blobs/uploads/`, app.url), {
      headers: { Authorization: authorization },
    })
    assert.equal(begun.status, 202)
    return location(begun)
  }

  function closing(where: URL, content: Buffer): URL {
    const closed = new URL(where)
    closed.searchParams.set('digest', `sha256:${createHash('sha256').update(content).digest('hex')}`)
    return closed
  }

  test('a push whose token expires in the middle completes, and the manifest after it needs a fresh token', async () => {
    const first = await freshToken()
    const content = randomBytes(3_000)
    let where = await begin(first)
    for (const part of [content.subarray(0, 1_000), content.subarray(1_000, 2_000), content.subarray(2_000)]) {
      app.advance(2 * TOKEN_LIFETIME_MS)
      // Clients go on showing the token they have.
      const patched = await send('PATCH', where, { body: part, headers: { Authorization: first } })
      assert.equal(patched.status, 202)
      where = location(patched)
    }
    const status = await send('GET', where)
    assert.deepEqual([status.status, status.headers.get('range')], [204, '0-2999'])
    const closed = closing(where, content)
    assert.equal((await send('PUT', closed, { headers: { Authorization: first } })).status, 201)

    const digest = closed.searchParams.get('digest') ?? ''
    const config = { mediaType: 'application/octet-stream', digest, size: content.byteLength }
    const image = JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers: [] })
    const put = (authorization: string): Promise<Response> =>
      send('PUT', new URL(`/v2/${REPOSITORY}/manifests/1`, app.url), {
        body: image,
        headers: { Authorization: authorization, 'Content-Type': MANIFEST },
      })
    const refused = await put(first)
    assert.equal(refused.status, 401)
    assert.match(refused.headers.get('www-authenticate') ?? '', /,error="invalid_token",error_description="[^"]+"$/)
    assert.equal((await put(await freshToken())).status, 201)
  })

  test('an upload that is written to goes on past the time in which one that is not would end', async () => {
    const content = randomBytes(300)
    let where = await begin(await freshToken())
    for (const part of [content.subarray(0, 100), content.subarray(100, 200), content.subarray(200)]) {
      app.advance(UPLOAD_EXPIRY_MS - HOUR_MS)
      const patched = await send('PATCH', where, { body: part })
      assert.equal(patched.status, 202)
      where = location(patched)
    }
    assert.equal((await send('PUT', closing(where, content))).status, 201)
  })

  test('the Location of an upload that nobody wrote to ends with it', async () => {
    const where = await begin(await freshToken())
    app.advance(UPLOAD_EXPIRY_MS + HOUR_MS)
    assert.equal((await send('PATCH', where, { body: 'late' })).status, 401)
  })

  test('a Location opens its own upload in its own repository, and nothing else', async () => {
    const where = await begin(await freshToken())
    const other = await begin(await freshToken())
    const elsewhere = new URL(where)
    elsewhere.pathname = where.pathname.replace(REPOSITORY, 'team/other')
    const swapped = new URL(where)
    swapped.pathname = other.pathname
    const manifest = new URL(`/v2/${REPOSITORY}/manifests/1`, app.url)
    const another = new URL(`/v2/${REPOSITORY}/blobs/uploads/`, app.url)
    for (const target of [elsewhere, swapped, manifest, another]) target.search = where.search
    assert.equal((await send('PATCH', elsewhere, { body: 'x' })).status, 401)
    assert.equal((await send('PATCH', swapped, { body: 'x' })).status, 401)
    assert.equal((await send('GET', manifest)).status, 401)
    assert.equal((await send('POST', another)).status, 401)
    const [parameter] = where.searchParams.values()
    assert.equal((await send('POST', another, { headers: { Authorization: `Bearer ${parameter}` } })).status, 401)
    assert.equal((await send('PATCH', where, { body: 'x' })).status, 202)
  })
})
