import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const ADMIN = basic('admin', PASSWORD)
const PULLER = basic('puller', PASSWORD)
const PUSHER = basic('pusher', PASSWORD)
const digestOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: string
}

void suite('nothing is read or changed around a right', () => {
  let server: AccessServer

  before(async () => {
    server = await startAccessServer({ BERTH_AUTH_GUESSES_PER_ADDRESS: '10000' })
    const { administer } = server
    for (const name of ['puller', 'pusher']) await administer('POST', '/users', { name, password: PASSWORD })
    const grant = async (name: string, actions: readonly string[]): Promise<unknown> =>
      await administer('POST', '/grants', { subject: { kind: 'principal', name }, pattern: 'team/**', actions })
    await grant('puller', ['pull'])
    await grant('pusher', ['push'])
  })
  after(() => server.stop())

  async function ask(
    authorization: string | undefined,
    method: string,
    path: string,
    more: { readonly body?: string; readonly headers?: Readonly<Record<string, string>> } = {},
  ): Promise<Answer> {
    const shown = authorization === undefined ? {} : { Authorization: authorization }
    const { body, headers } = more
    const response = await fetch(`${server.url}${path}`, {
      method,
      headers: { ...shown, ...headers },
      ...(body === undefined ? {} : { body }),
    })
    return { status: response.status, headers: response.headers, body: await response.text() }
  }

  async function pushBlob(name: string, content: string): Promise<string> {
    const digest = digestOf(content)
    const path = `/v2/${name}/blobs/uploads/?digest=${digest}`
    assert.equal((await ask(ADMIN, 'POST', path, { body: content })).status, 201)
    return digest
  }

  const imageOf = (config: string): string =>
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config, size: 2 },
      layers: [],
    })

  const pushImage = async (authorization: string, name: string, reference: string, image: string): Promise<Answer> =>
    await ask(authorization, 'PUT', `/v2/${name}/manifests/${reference}`, {
      body: image,
      headers: { 'Content-Type': MANIFEST },
    })

  test('a digest alone opens no blob and no manifest of another repository (CVE-2024-39897, GHSA-55r9-5mx9-qq7r)', async () => {
    const content = 'only in other/app'
    const digest = await pushBlob('other/app', content)
    const image = imageOf(digest)
    assert.equal((await pushImage(ADMIN, 'other/app', '1', image)).status, 201)
    for (const method of ['GET', 'HEAD']) {
      for (const path of [`blobs/${digest}`, `manifests/${digestOf(image)}`]) {
        assert.equal((await ask(PUSHER, method, `/v2/team/app/${path}`)).status, 404, `${method} ${path}`)
      }
    }
    const named = await pushImage(PUSHER, 'team/app', 'steals', image)
    assert.equal(named.status, 400)
    assert.match(named.body, /MANIFEST_BLOB_UNKNOWN/)
    const begun = await ask(PUSHER, 'POST', '/v2/team/app/blobs/uploads/')
    const closed = await ask(PUSHER, 'PUT', `${begun.headers.get('location') ?? ''}&digest=${digest}`)
    assert.equal(closed.status, 400)
    assert.match(closed.body, /DIGEST_INVALID/)
    assert.equal((await ask(PUSHER, 'GET', `/v2/team/app/blobs/${digest}`)).status, 404)
  })

  test('what was deleted is read by nobody, also where it was read a moment before (CVE-2026-35172)', async () => {
    const digest = await pushBlob('team/deleted', 'deleted after it was read')
    const image = imageOf(digest)
    const manifest = digestOf(image)
    assert.equal((await pushImage(ADMIN, 'team/deleted', '1', image)).status, 201)
    const paths = ['manifests/1', `manifests/${manifest}`, `blobs/${digest}`]
    const conditions: readonly Readonly<Record<string, string>>[] = [
      {},
      { 'If-None-Match': `"${digest}", "${manifest}"` },
      { Range: 'bytes=0-0' },
    ]
    const statuses = async (): Promise<Set<number>> => {
      const found = new Set<number>()
      for (const headers of conditions) {
        for (const path of paths) {
          for (const method of ['GET', 'HEAD']) {
            found.add((await ask(PULLER, method, `/v2/team/deleted/${path}`, { headers })).status)
          }
        }
      }
      return found
    }
    assert.equal((await statuses()).has(404), false)
    assert.equal((await ask(ADMIN, 'DELETE', `/v2/team/deleted/manifests/${manifest}`)).status, 202)
    assert.equal((await ask(ADMIN, 'DELETE', `/v2/team/deleted/blobs/${digest}`)).status, 202)
    assert.deepEqual(await statuses(), new Set([404]))
  })

  test('a tag is moved by who may push alone, `latest` too and also by the digest (project-zot/zot #3847, #4266)', async () => {
    const digest = await pushBlob('team/tags', 'one')
    const image = imageOf(digest)
    const other = imageOf(digest).replace('"layers":[]', '"layers":[],"annotations":{}')
    for (const tag of ['latest', 'stable']) assert.equal((await pushImage(ADMIN, 'team/tags', tag, image)).status, 201)
    const byDigest = `${digestOf(other)}?tag=latest&tag=stable`
    for (const reference of ['latest', 'stable', byDigest]) {
      assert.equal((await pushImage(PULLER, 'team/tags', reference, other)).status, 401, reference)
    }
    const pointed = async (tag: string): Promise<string | null> =>
      (await ask(PULLER, 'HEAD', `/v2/team/tags/manifests/${tag}`)).headers.get('docker-content-digest')
    assert.deepEqual([await pointed('latest'), await pointed('stable')], [digestOf(image), digestOf(image)])
    assert.equal((await pushImage(PUSHER, 'team/tags', byDigest, other)).status, 201)
    assert.deepEqual([await pointed('latest'), await pointed('stable')], [digestOf(other), digestOf(other)])
  })

  test('a tag and an image are deleted by who may delete, which the right to push is not (CVE-2026-41888)', async () => {
    const image = imageOf(await pushBlob('team/kept', 'kept'))
    assert.equal((await pushImage(PUSHER, 'team/kept', '1', image)).status, 201)
    for (const reference of ['1', digestOf(image)]) {
      assert.equal((await ask(PUSHER, 'DELETE', `/v2/team/kept/manifests/${reference}`)).status, 401)
    }
    assert.equal((await ask(PULLER, 'GET', '/v2/team/kept/manifests/1')).status, 200)
  })

  test('an upload is read, written and cancelled by who may push alone (distribution-spec, "Pushing a blob in chunks")', async () => {
    const begun = await ask(PUSHER, 'POST', '/v2/team/app/blobs/uploads/')
    const path = new URL(begun.headers.get('location') ?? '', server.url).pathname
    for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
      for (const authorization of [PULLER, undefined])
        assert.equal((await ask(authorization, method, path)).status, 401)
    }
    assert.equal((await ask(PUSHER, 'GET', path)).status, 204)
    assert.equal((await ask(PUSHER, 'DELETE', path)).status, 204)
    assert.equal((await ask(PUSHER, 'GET', path)).status, 404)
  })

  test('who may not pull is not told whether a repository, a tag or a blob is there (CWE-204)', async () => {
    const digest = await pushBlob('hidden/app', 'hidden')
    assert.equal((await pushImage(ADMIN, 'hidden/app', '1', imageOf(digest))).status, 201)
    /** What a caller can tell answers apart by, once what it said itself is taken out. */
    const seen = async (authorization: string | undefined, name: string, path: string): Promise<object> => {
      const { status, headers, body } = await ask(authorization, 'GET', `/v2/${name}/${path}`)
      const told = [...headers].filter(([header]) => !['date', 'x-request-id', 'content-length'].includes(header))
      return { status, text: JSON.stringify([told, body]).replaceAll(name, 'NAME') }
    }
    for (const authorization of [undefined, PULLER]) {
      for (const path of ['manifests/1', `blobs/${digest}`, 'tags/list', `referrers/${digest}`]) {
        const there = await seen(authorization, 'hidden/app', path)
        assert.deepEqual(await seen(authorization, 'absent/app', path), there)
        assert.equal((there as { status: number }).status, 401)
      }
    }
  })

  test('a mount out of where the caller may not pull answers like one of a blob that is nowhere (CWE-204)', async () => {
    const digest = await pushBlob('hidden/mount', 'hidden from mounts')
    const seen = async (query: string): Promise<object> => {
      const { status, headers, body } = await ask(PUSHER, 'POST', `/v2/team/mount/blobs/uploads/?${query}`)
      const told = [...headers].map(([header, value]) => {
        const isOwn = ['date', 'x-request-id', 'location', 'docker-upload-uuid'].includes(header)
        return isOwn ? [header] : [header, value]
      })
      return { status, told, body }
    }
    const absent = await seen(`mount=${digestOf('nowhere')}&from=hidden/mount`)
    assert.equal((absent as { status: number }).status, 202)
    for (const query of [
      `mount=${digest}&from=hidden/mount`,
      `mount=${digest}`,
      `mount=${digest}&from=absent/mount`,
      `mount=${digest}&from=Not/A/Name`,
    ]) {
      assert.deepEqual(await seen(query), absent, query)
    }
  })

  test('a page of the catalog is bounded whatever a stranger asks for (CVE-2023-2253)', async () => {
    const nobody = `Bearer ${await fetchToken(server.url, ['registry:catalog:*'])}`
    for (const n of ['1000000000', String(Number.MAX_SAFE_INTEGER), '9'.repeat(400)]) {
      const { status, body } = await ask(nobody, 'GET', `/v2/_catalog?n=${n}`)
      assert.equal(status, 200)
      assert.deepEqual(JSON.parse(body), { repositories: [] })
    }
    for (const n of ['-1', '1e9', 'x', '9'.repeat(401)]) {
      assert.equal((await ask(nobody, 'GET', `/v2/_catalog?n=${n}`)).status, 400, n)
    }
  })

  test('no name gives a right: who is called like the system may what was granted, which is nothing (CWE-290)', async () => {
    const names = ['local', 'start']
    for (const name of names) await server.administer('POST', '/users', { name, password: PASSWORD })
    await assert.rejects(
      server.administer('POST', '/users', { name: 'anonymous', password: PASSWORD }),
      /no single user/,
    )
    const shown = names.map(name => basic(name, PASSWORD))
    for (const name of ['admin', 'local']) {
      const robot = await server.administer('POST', '/robots', {
        name,
        grants: [{ pattern: 'nothing/here', actions: ['pull'] }],
      })
      shown.push(basic(String(robot['name']), String(robot['secret'])))
      // The name beside a robot's secret means nothing: it is not the administrator's.
      shown.push(basic('admin', String(robot['secret'])))
    }
    await pushBlob('team/app', 'config of an image')
    for (const authorization of shown) {
      assert.equal((await ask(authorization, 'GET', '/v2/team/app/tags/list')).status, 401)
      assert.deepEqual(JSON.parse((await ask(authorization, 'GET', '/v2/_catalog')).body), { repositories: [] })
      assert.equal((await ask(authorization, 'GET', '/api/v1/users')).status, 403)
    }
  })

  test('pulls are answered while many logins are judged', async () => {
    const digest = await pushBlob('team/busy', 'x'.repeat(100_000))
    const token = `Bearer ${await fetchToken(server.url, ['repository:team/busy:pull'], PULLER)}`
    let judged = 0
    const logins = Promise.all(
      Array.from({ length: 40 }, async (_, index) => {
        assert.equal((await ask(basic(`stranger${index}`, 'guess'), 'GET', '/token')).status, 401)
        judged += 1
      }),
    )
    let pulled = 0
    while (judged < 40) {
      assert.equal((await ask(token, 'GET', `/v2/team/busy/blobs/${digest}`)).status, 200)
      pulled += 1
    }
    await logins
    assert.ok(pulled > 40, `${pulled} blobs were pulled while 40 logins were judged`)
  })
})
