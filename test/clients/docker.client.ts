import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  makeRootfs,
  makeTar,
  printedDigest,
  removeScratch,
  requestsDuring,
  scratch,
  startDockerd,
} from '../support/clients.ts'
import { type TestServer, startServer } from '../support/server.ts'

const HELLO = 'hello from the first engine'
const CHANGED = 'hello again, changed'

describe('the Docker engine', () => {
  let server: TestServer
  let work: string
  let first: Awaited<ReturnType<typeof startDockerd>>
  let second: Awaited<ReturnType<typeof startDockerd>>
  let image: string
  let firstDigest: string

  before(async () => {
    work = await scratch()
    server = await startServer()
    image = `${server.host}/docker/app`
    first = await startDockerd(join(work, 'a'))
    second = await startDockerd(join(work, 'b'))
    await makeRootfs(join(work, 'rootfs'))
    await makeTar(join(work, 'rootfs'), join(work, 'rootfs.tar'))
    await first.docker('import', '--change', 'ENV PATH=/bin', join(work, 'rootfs.tar'), 'base:1')
    await build(HELLO, '1')
    firstDigest = printedDigest(await first.docker('push', `${image}:1`))
  })

  after(async () => {
    await second?.stop()
    await first?.stop()
    await server?.stop()
    await removeScratch(work)
  })

  /** Builds on the first engine: a layer that never changes, and one that holds `text`. */
  async function build(text: string, tag: string): Promise<void> {
    const context = join(work, `context-${tag}`)
    await mkdir(context, { recursive: true })
    await writeFile(join(context, 'steady'), 'this layer never changes\n')
    await writeFile(join(context, 'text'), `${text}\n`)
    const steps = ['FROM base:1', 'COPY steady /steady', 'COPY text /text', 'CMD ["/bin/cat", "/text"]']
    await writeFile(join(context, 'Dockerfile'), `${steps.join('\n')}\n`)
    await first.docker('build', '--network', 'none', '--tag', `${image}:${tag}`, context)
  }

  async function runOnSecond(reference: string): Promise<string> {
    return (await second.docker('run', '--rm', '--network', 'none', reference)).stdout.trim()
  }

  it('runs on a second host what was built and pushed on the first', async () => {
    await second.docker('pull', `${image}:1`)

    assert.equal(await runOnSecond(`${image}:1`), HELLO)
  })

  it('sends only the changed layer when a change is pushed', async () => {
    await build(CHANGED, '2')
    let stdout = ''
    const requests = await requestsDuring(server, async () => {
      stdout = (await first.docker('push', `${image}:2`)).stdout
    })

    assert.equal(stdout.match(/: Layer already exists$/gm)?.length, 2)
    assert.equal(stdout.match(/: Pushed$/gm)?.length, 1)
    const finished = requests.filter(
      line => line['method'] === 'PUT' && String(line['path']).includes('/blobs/uploads/'),
    )
    assert.equal(finished.length, 2, 'one layer and one config are uploaded')
    assert.ok(finished.every(line => line['status'] === 201))
  })

  it('fetches only the changed layer when a change is pulled', async () => {
    await second.docker('pull', `${image}:1`)
    let stdout = ''
    const requests = await requestsDuring(server, async () => {
      stdout = (await second.docker('pull', `${image}:2`)).stdout
    })

    assert.equal(stdout.match(/: Already exists$/gm)?.length, 2)
    assert.equal(await runOnSecond(`${image}:2`), CHANGED)
    const blobs = requests.filter(line => line['method'] === 'GET' && String(line['path']).includes('/blobs/'))
    assert.equal(blobs.length, 2, 'one layer and one config are fetched')
  })

  it('pulls and runs an image by its digest', async () => {
    const reference = `${image}@${firstDigest}`
    const pulled = printedDigest(await second.docker('pull', reference))

    assert.equal(pulled, firstDigest)
    assert.equal(await runOnSecond(reference), HELLO)
  })

  it('says that an image which was never pushed is not there', async () => {
    await assert.rejects(second.docker('pull', `${server.host}/docker/nothing:1`), /not found|manifest unknown/i)
  })
})
