import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  type Output,
  layoutDescriptor,
  makeLayout,
  makeMultiArchLayout,
  removeScratch,
  run,
  scratch,
} from '../support/clients.ts'
import { type TestServer, startServer } from '../support/server.ts'

const FILES = [
  { path: '/hello', content: 'hello from the first layer\n' },
  { path: '/more', content: 'and from the second\n' },
]

const skopeo = (...args: string[]): Promise<Output> => run('skopeo', args)

describe('skopeo', () => {
  let server: TestServer
  let other: TestServer
  let work: string
  let layout: string
  let digest: string

  before(async () => {
    work = await scratch()
    layout = await makeLayout(work, 'image', FILES)
    digest = (await layoutDescriptor(layout)).digest
    server = await startServer()
    other = await startServer()
    await push('skopeo/image', '1')
  })

  after(async () => {
    await other?.stop()
    await server?.stop()
    await removeScratch(work)
  })

  async function push(repository: string, tag: string): Promise<void> {
    await skopeo(
      'copy',
      '--dest-tls-verify=false',
      `oci:${layout}:latest`,
      `docker://${server.host}/${repository}:${tag}`,
    )
  }

  async function digestOf(reference: string): Promise<string> {
    const { stdout } = await skopeo('inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${reference}`)
    return stdout.trim()
  }

  async function tagsOf(repository: string): Promise<string[]> {
    const { stdout } = await skopeo('list-tags', '--tls-verify=false', `docker://${server.host}/${repository}`)
    return (JSON.parse(stdout) as { Tags: string[] }).Tags
  }

  it('copies a multi-layer image in and out to an OCI layout with equal digests', async () => {
    const out = join(work, 'out')
    await skopeo('copy', '--src-tls-verify=false', `docker://${server.host}/skopeo/image:1`, `oci:${out}:latest`)

    assert.equal((await layoutDescriptor(out)).digest, digest)
    assert.equal(await digestOf(`${server.host}/skopeo/image:1`), digest)
  })

  it('copies an index of two platforms in and out with --all, with equal digests', async () => {
    const multi = await makeLayout(work, 'multi', FILES)
    const indexDigest = await makeMultiArchLayout(multi)
    const reference = `docker://${server.host}/skopeo/multi:1`
    await skopeo('copy', '--all', '--dest-tls-verify=false', `oci:${multi}:latest`, reference)
    const out = join(work, 'multi-out')
    await skopeo('copy', '--all', '--src-tls-verify=false', reference, `oci:${out}:latest`)

    assert.equal((await layoutDescriptor(out)).digest, indexDigest)
  })

  it('pushes and pulls an image of Docker schema 2', async () => {
    const reference = `docker://${server.host}/skopeo/schema2:1`
    await skopeo('copy', '--format', 'v2s2', '--dest-tls-verify=false', `oci:${layout}:latest`, reference)
    const { stdout } = await skopeo('inspect', '--raw', '--tls-verify=false', reference)
    await skopeo('copy', '--src-tls-verify=false', reference, `dir:${join(work, 'schema2')}`)

    const { mediaType } = JSON.parse(stdout) as { mediaType: string }
    assert.equal(mediaType, 'application/vnd.docker.distribution.manifest.v2+json')
  })

  it('copies an image from one registry to another with an equal digest', async () => {
    const target = `${other.host}/copied/image:1`
    const insecure = ['--src-tls-verify=false', '--dest-tls-verify=false']
    await skopeo('copy', ...insecure, `docker://${server.host}/skopeo/image:1`, `docker://${target}`)

    assert.equal(await digestOf(target), digest)
  })

  it('lists all tags of a repository', async () => {
    for (const tag of ['b', 'a', 'c']) await push('skopeo/tags', tag)

    assert.deepEqual(await tagsOf('skopeo/tags'), ['a', 'b', 'c'])
  })

  it('inspects an image: its layers, its platform and its raw manifest', async () => {
    const reference = `docker://${server.host}/skopeo/image:1`
    const { stdout } = await skopeo('inspect', '--tls-verify=false', reference)
    const raw = await skopeo('inspect', '--raw', '--tls-verify=false', reference)

    const shown = JSON.parse(stdout) as { Layers: string[]; Os: string }
    const manifest = JSON.parse(raw.stdout) as { layers: { digest: string }[] }
    assert.equal(shown.Os, 'linux')
    assert.equal(shown.Layers.length, 1 + FILES.length)
    assert.deepEqual(
      shown.Layers,
      manifest.layers.map(layer => layer.digest),
    )
  })

  it('deletes an image so that it can no longer be pulled', async () => {
    await push('skopeo/doomed', '1')
    const reference = `docker://${server.host}/skopeo/doomed:1`
    await skopeo('delete', '--tls-verify=false', reference)

    await assert.rejects(skopeo('inspect', '--tls-verify=false', reference), /manifest unknown/i)
  })
})
