import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { CRANE, layoutDescriptor, makeLayout, removeScratch, requestsDuring, run, scratch } from '../support/clients.ts'
import { type TestServer, startServer } from '../support/server.ts'

const FILES = [{ path: '/hello', content: 'hello from crane\n' }]

const crane = async (...args: string[]): Promise<string> => (await run(CRANE, [...args, '--insecure'])).stdout.trim()

describe('crane', () => {
  let server: TestServer
  let work: string
  let layout: string
  let digest: string

  before(async () => {
    work = await scratch()
    layout = await makeLayout(work, 'image', FILES)
    digest = (await layoutDescriptor(layout)).digest
    server = await startServer()
    await crane('push', layout, `${server.host}/crane/image:1`)
  })

  after(async () => {
    await server?.stop()
    await removeScratch(work)
  })

  it('pushes an image and reads its digest by tag', async () => {
    assert.equal(await crane('digest', `${server.host}/crane/image:1`), digest)
  })

  it('pulls an image to an OCI layout with an equal digest', async () => {
    const out = join(work, 'out')
    await crane('pull', '--format', 'oci', `${server.host}/crane/image:1`, out)

    assert.equal((await layoutDescriptor(out)).digest, digest)
  })

  it('pulls an image as a tar archive', async () => {
    const archive = join(work, 'image.tar')
    await crane('pull', `${server.host}/crane/image:1`, archive)
    const { stdout } = await run('tar', ['-tf', archive])

    assert.match(stdout, /^manifest\.json$/m)
  })

  it('copies between repositories by mounting the blobs, without uploading any', async () => {
    const logged = await requestsDuring(server, () =>
      crane('copy', `${server.host}/crane/image:1`, `${server.host}/crane/copied:1`),
    )

    assert.equal(await crane('digest', `${server.host}/crane/copied:1`), digest)
    const requests = logged.filter(line => String(line['path']).startsWith('/v2/crane/copied/'))
    const uploads = requests.filter(line => /\/blobs\/uploads\/./.test(String(line['path'])))
    assert.ok(
      requests.some(line => line['method'] === 'POST' && line['status'] === 201),
      'no mount was seen in the access log',
    )
    assert.deepEqual(uploads, [])
  })

  it('lists the tags of a repository', async () => {
    await crane('copy', `${server.host}/crane/image:1`, `${server.host}/crane/listed:b`)
    await crane('tag', `${server.host}/crane/listed:b`, 'a')

    assert.deepEqual((await crane('ls', `${server.host}/crane/listed`)).split('\n'), ['a', 'b'])
  })

  it('validates every layer of a pushed image against its digests', async () => {
    await crane('validate', '--remote', `${server.host}/crane/image:1`)
  })

  it('deletes an image by digest so that it can no longer be found', async () => {
    await crane('copy', `${server.host}/crane/image:1`, `${server.host}/crane/doomed:1`)
    await crane('delete', `${server.host}/crane/doomed@${digest}`)

    await assert.rejects(crane('digest', `${server.host}/crane/doomed:1`), /MANIFEST_UNKNOWN|404/)
  })
})
