import assert from 'node:assert/strict'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  CRANE,
  type Output,
  layoutDescriptor,
  makeLayout,
  makeMultiArchLayout,
  removeScratch,
  run,
  scratch,
  startContainerd,
  startDockerd,
} from '../support/clients.ts'
import { type Distribution, startDistribution } from '../support/distribution.ts'
import { makeHost } from '../support/podman-host.ts'
import { type TestServer, startServer } from '../support/server.ts'

/** A name no resolver knows: that it works shows that the mirror was asked. */
const UPSTREAM = 'upstream.berth.test'
const FILES = [
  { path: '/hello', content: 'hello from the upstream\n' },
  { path: '/more', content: 'and more of it\n' },
]

/** Each client pulls cold, then warm, then with the upstream stopped. */
describe('clients that pull through a mirror', () => {
  let work: string
  let upstream: Distribution
  let server: TestServer
  let digest: string
  let multi: string

  before(async () => {
    work = await scratch()
    upstream = await startDistribution(join(work, 'upstream'))
    const layout = await makeLayout(work, 'image', FILES)
    digest = (await layoutDescriptor(layout)).digest
    for (const client of ['skopeo', 'crane', 'podman', 'containerd', 'docker']) {
      await publish(`oci:${layout}:latest`, `library/${client}:1`)
    }
    await publish(`oci:${layout}:latest`, 'library/schema2:1', '--format', 'v2s2')
    multi = await makeMultiArchLayout(layout)
    await publish(`oci:${layout}:latest`, 'library/multi:1', '--all')
    server = await startServer({
      env: {
        BERTH_MIRROR_UPSTREAMS: JSON.stringify({
          hub: {
            url: `http://${upstream.host}`,
            username: upstream.username,
            password: upstream.password,
            allowPrivate: true,
            tagTtl: '0s',
            namespaces: [UPSTREAM],
            hosts: ['127.0.0.1'],
          },
        }),
      },
    })
  })

  after(async () => {
    await server?.stop()
    await upstream?.stop()
    await removeScratch(work)
  })

  async function publish(source: string, target: string, ...more: string[]): Promise<void> {
    const credentials = `${upstream.username}:${upstream.password}`
    await run('skopeo', [
      'copy',
      ...more,
      '--dest-tls-verify=false',
      '--dest-creds',
      credentials,
      source,
      `docker://${upstream.host}/${target}`,
    ])
  }

  /** By a name that is not the mirror's own, so that the path has the prefix. */
  const byPrefix = (): string => `localhost:${new URL(server.url).port}/hub/library`
  const skopeo = (...args: string[]): Promise<Output> => run('skopeo', args)
  const crane = (...args: string[]): Promise<Output> => run(CRANE, args)

  it('skopeo copies by the prefix, index and schema 2 too, with the digests of the upstream', async () => {
    await skopeo('copy', '--src-tls-verify=false', `docker://${byPrefix()}/skopeo:1`, `oci:${join(work, 'copied')}:1`)
    assert.equal(await digestThroughMirror('skopeo:1'), digest)
    await skopeo(
      'copy',
      '--all',
      '--src-tls-verify=false',
      `docker://${byPrefix()}/multi:1`,
      `oci:${join(work, 'all')}:1`,
    )
    assert.equal(await digestThroughMirror('multi:1'), multi)
    await skopeo('copy', '--src-tls-verify=false', `docker://${byPrefix()}/schema2:1`, `dir:${join(work, 'schema2')}`)
    assert.match(await readFile(join(work, 'schema2', 'manifest.json'), 'utf8'), /docker\.distribution\.manifest\.v2/)
  })

  it('crane pulls and validates what is behind the mirror', async () => {
    assert.equal((await crane('digest', '--insecure', `${byPrefix()}/crane:1`)).stdout.trim(), digest)
    await crane('validate', '--insecure', '--remote', `${byPrefix()}/crane:1`)
    assert.match((await crane('ls', '--insecure', `${byPrefix()}/crane`)).stdout, /^1$/m)
  })

  it('podman pulls by registries.conf', async () => {
    const host = await makeHost(join(work, 'podman'), server.host)
    const conf = [
      '[[registry]]',
      `prefix = "${UPSTREAM}"`,
      `location = "${UPSTREAM}"`,
      '[[registry.mirror]]',
      `location = "localhost:${new URL(server.url).port}/hub"`,
      'insecure = true',
    ]
    await writeFile(join(work, 'podman', 'registries.conf'), `${conf.join('\n')}\n`)
    await host.podman('pull', '--quiet', `${UPSTREAM}/library/podman:1`)
    const { stdout } = await host.podman('image', 'inspect', '--format', '{{.Digest}}', `${UPSTREAM}/library/podman:1`)
    assert.equal(stdout.trim(), digest)
  })

  it('containerd pulls by hosts.toml and ns', async () => {
    const engine = await startContainerd(join(work, 'containerd'))
    try {
      const hosts = join(work, 'certs.d')
      await mkdir(join(hosts, UPSTREAM), { recursive: true })
      const lines = [
        `server = "https://${UPSTREAM}"`,
        `[host."http://localhost:${new URL(server.url).port}"]`,
        'capabilities = ["pull", "resolve"]',
      ]
      await writeFile(join(hosts, UPSTREAM, 'hosts.toml'), `${lines.join('\n')}\n`)
      const reference = `${UPSTREAM}/library/containerd:1`
      await engine.ctr('images', 'pull', '--snapshotter', 'native', '--hosts-dir', hosts, reference)
      assert.ok((await engine.ctr('images', 'list', `name==${reference}`)).stdout.includes(digest))
    } finally {
      await engine.stop()
    }
  })

  it('the Docker engine pulls by registry-mirrors, the mirror being at the root', async () => {
    const engine = await startDockerd(join(work, 'docker'), { 'registry-mirrors': [server.url] })
    try {
      await engine.docker('pull', 'library/docker:1')
      const { stdout } = await engine.docker('image', 'inspect', '--format', '{{.RepoDigests}}', 'library/docker:1')
      assert.ok(stdout.includes(digest), stdout)
    } finally {
      await engine.stop()
    }
  })

  it('with the upstream stopped, they go on pulling what is here', async () => {
    await upstream.stop()
    await skopeo('copy', '--src-tls-verify=false', `docker://${byPrefix()}/skopeo:1`, `oci:${join(work, 'again')}:1`)
    await skopeo(
      'copy',
      '--all',
      '--src-tls-verify=false',
      `docker://${byPrefix()}/multi:1`,
      `oci:${join(work, 'all2')}:1`,
    )
    await crane('validate', '--insecure', '--remote', `${byPrefix()}/crane:1`)
    const engine = await startDockerd(join(work, 'docker2'), { 'registry-mirrors': [server.url] })
    try {
      await engine.docker('pull', 'library/docker:1')
    } finally {
      await engine.stop()
    }
  })

  async function digestThroughMirror(image: string): Promise<string> {
    const { stdout } = await skopeo('inspect', '--raw', '--tls-verify=false', `docker://${byPrefix()}/${image}`)
    return await digestOfText(stdout)
  }
})

async function digestOfText(text: string): Promise<string> {
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))
  return `sha256:${Buffer.from(hash).toString('hex')}`
}
