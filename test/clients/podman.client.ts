import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { makeRootfs, makeTar, removeScratch, scratch } from '../support/clients.ts'
import { type Host, makeHost } from '../support/podman-host.ts'
import { type TestServer, startServer } from '../support/server.ts'

const HELLO = 'hello from podman'

describe('podman and buildah', () => {
  let server: TestServer
  let work: string
  let builder: Host
  let runner: Host
  let image: string

  before(async () => {
    work = await scratch()
    server = await startServer()
    image = `${server.host}/podman/app`
    builder = await makeHost(join(work, 'builder'), server.host)
    runner = await makeHost(join(work, 'runner'), server.host)
    const context = join(work, 'context')
    await mkdir(context)
    await makeRootfs(join(work, 'rootfs'))
    await makeTar(join(work, 'rootfs'), join(context, 'rootfs.tar'))
    await writeFile(join(context, 'hello'), `${HELLO}\n`)
    const steps = ['FROM scratch', 'ADD rootfs.tar /', 'ENV PATH=/bin', 'COPY hello /hello']
    steps.push('RUN cp /hello /copied', 'CMD ["/bin/cat", "/copied"]')
    await writeFile(join(context, 'Containerfile'), `${steps.join('\n')}\n`)
    await builder.buildah('bud', '--isolation', 'chroot', '--layers', '--tag', `${image}:1`, context)
    await builder.buildah('push', `${image}:1`)
  })

  after(async () => {
    await server?.stop()
    await removeScratch(work)
  })

  it('podman runs on another host what buildah built and pushed', async () => {
    await runner.podman('pull', `${image}:1`)
    const { stdout } = await runner.podman('run', '--rm', '--network', 'none', `${image}:1`)

    assert.equal(stdout.trim(), HELLO)
  })

  it('podman pushes an image that podman and buildah on another host pull', async () => {
    await builder.podman('tag', `${image}:1`, `${image}:2`)
    await builder.podman('push', '--digestfile', join(work, 'digest'), `${image}:2`)
    await runner.podman('pull', `${image}:2`)
    await runner.buildah('pull', `${image}:2`)
    const { stdout } = await runner.podman('images', '--format', '{{.Repository}}:{{.Tag}}')

    assert.ok(stdout.split('\n').includes(`${image}:2`), stdout)
  })
})
