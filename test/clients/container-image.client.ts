import assert from 'node:assert/strict'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  REPOSITORY_ROOT,
  layoutDescriptor,
  makeLayout,
  removeScratch,
  run,
  scratch,
  startDockerd,
  until,
} from '../support/clients.ts'
import { importNodeImage } from '../support/stand-in-images.ts'

const BASE_IMAGE = 'node:24-bookworm-slim'
const IMAGE = 'berth:test'
const CONTAINER = 'berth'
/** The first start makes the embedded index, and a busy machine takes its time for that. */
const HEALTHY_LIMIT_MS = 180_000

async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

describe('the container image', () => {
  let work: string
  let engine: Awaited<ReturnType<typeof startDockerd>>
  let host: string

  before(async () => {
    work = await scratch()
    engine = await startDockerd(join(work, 'd'))
    await importNodeImage(engine.docker, work, BASE_IMAGE)
    await engine.docker('build', '--network', 'host', '--tag', IMAGE, REPOSITORY_ROOT)
    const port = await freePort()
    host = `127.0.0.1:${port}`
    const settingsOfServer = ['BERTH_AUTH_MODE=open', `BERTH_HTTP_PORT=${port}`, 'BERTH_METRICS_PORT=0']
    const options = ['--read-only', '--network', 'host', '--volume', 'registry:/var/lib/berth']
    options.push('--health-interval', '1s', ...settingsOfServer.flatMap(setting => ['--env', setting]))
    await engine.docker('run', '--detach', '--name', CONTAINER, ...options, IMAGE)
    await healthy()
  })

  after(async () => {
    await engine?.docker('rm', '--force', '--volumes', CONTAINER).catch(() => undefined)
    await engine?.stop()
    await removeScratch(work)
  })

  async function healthy(): Promise<void> {
    try {
      await until(
        'the container is healthy',
        async () => {
          const status = await inspect('{{.State.Status}} {{.State.Health.Status}}')
          if (status.startsWith('exited')) throw new Error('the container has ended')
          return status === 'running healthy'
        },
        HEALTHY_LIMIT_MS,
      )
    } catch (cause) {
      const { stdout, stderr } = await engine.docker('logs', CONTAINER)
      throw new Error(`${stdout}\n${stderr}\n${await inspect('{{json .State.Health}}')}`, { cause })
    }
  }

  async function inspect(format: string): Promise<string> {
    return (await engine.docker('inspect', '--format', format, CONTAINER)).stdout.trim()
  }

  it('runs as an ordinary user on a read-only root', async () => {
    assert.equal((await engine.docker('exec', CONTAINER, 'id', '-u')).stdout.trim(), '1000')
    await assert.rejects(engine.docker('exec', CONTAINER, 'touch', '/app/file'), /Read-only file system/)
  })

  it('takes a push, gives it back, and still has it after a restart', async () => {
    const layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello\n' }])
    const { digest } = await layoutDescriptor(layout)
    const reference = `docker://${host}/image/app:1`
    await run('skopeo', ['copy', '--dest-tls-verify=false', `oci:${layout}:latest`, reference])
    await engine.docker('restart', CONTAINER)
    await healthy()
    const out = join(work, 'out')
    await run('skopeo', ['copy', '--src-tls-verify=false', reference, `oci:${out}:latest`])

    assert.equal((await layoutDescriptor(out)).digest, digest)
  })

  it('stops in order when it is told to', async () => {
    await engine.docker('stop', '--time', '20', CONTAINER)

    assert.equal(await inspect('{{.State.ExitCode}}'), '0')
  })
})
