import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  type Output,
  layoutDescriptor,
  makeLayout,
  removeScratch,
  run,
  scratch,
  startContainerd,
} from '../support/clients.ts'
import { type TestServer, startServer } from '../support/server.ts'

/** A name no resolver knows: that it works shows that `hosts.toml` leads to the registry. */
const HOST = 'registry.berth.test'
const HELLO = 'hello from containerd'

describe('containerd', () => {
  let server: TestServer
  let work: string
  let engine: Awaited<ReturnType<typeof startContainerd>>
  let hostsDir: string
  let digest: string

  before(async () => {
    work = await scratch()
    server = await startServer()
    engine = await startContainerd(join(work, 'c'))
    hostsDir = join(work, 'certs.d')
    await mkdir(join(hostsDir, HOST), { recursive: true })
    const hosts = [`server = "https://${HOST}"`, `[host."${server.url}"]`, 'capabilities = ["pull", "resolve", "push"]']
    await writeFile(join(hostsDir, HOST, 'hosts.toml'), `${hosts.join('\n')}\n`)
    const layout = await makeLayout(work, 'image', [{ path: '/hello', content: `${HELLO}\n` }])
    digest = (await layoutDescriptor(layout)).digest
    const target = `docker://${server.host}/containerd/app:1`
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:latest`, target])
    await images('pull', '--snapshotter', 'native', `${HOST}/containerd/app:1`)
  })

  after(async () => {
    await engine?.stop()
    await server?.stop()
    await removeScratch(work)
  })

  async function images(verb: string, ...args: string[]): Promise<Output> {
    return await engine.ctr('images', verb, '--hosts-dir', hostsDir, ...args)
  }

  it('pulls an image by way of hosts.toml', async () => {
    const { stdout } = await engine.ctr('images', 'list', `name==${HOST}/containerd/app:1`)

    assert.ok(stdout.includes(digest), stdout)
  })

  it('runs a pulled image', async () => {
    const options = ['--rm', '--runc-binary', 'runc', '--snapshotter', 'native']
    const { stdout } = await engine.ctr('run', ...options, `${HOST}/containerd/app:1`, 'hello')

    assert.equal(stdout.trim(), HELLO)
  })

  it('pushes an image with an equal digest', async () => {
    await engine.ctr('images', 'tag', `${HOST}/containerd/app:1`, `${HOST}/containerd/pushed:1`)
    await images('push', `${HOST}/containerd/pushed:1`)
    const reference = `docker://${server.host}/containerd/pushed:1`
    const { stdout } = await run('skopeo', ['inspect', '--tls-verify=false', '--format', '{{.Digest}}', reference])

    assert.equal(stdout.trim(), digest)
  })
})
