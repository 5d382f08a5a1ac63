import assert from 'node:assert/strict'
import { chmod, copyFile, cp, mkdir, symlink } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  REPOSITORY_ROOT,
  exists,
  layoutDescriptor,
  makeLayout,
  makeRootfs,
  makeTar,
  removeScratch,
  run,
  scratch,
  startDockerd,
  until,
} from '../support/clients.ts'

const BASE_IMAGE = 'node:24-bookworm-slim'
const CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt'
const IMAGE = 'berth:test'
const CONTAINER = 'berth'

/** Makes what stands in for the official base image: Debian's busybox and libraries, this Node, this machine's npm. */
async function makeBaseRootfs(dir: string): Promise<void> {
  await makeRootfs(dir)
  const { stdout } = await run('ldd', [process.execPath])
  const libraries = [...stdout.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(match => String(match[1]))
  for (const library of libraries) await place(dir, library, library)
  await place(dir, process.execPath, '/usr/local/bin/node')
  const npmRoot = (await run('npm', ['root', '-g'])).stdout.trim()
  await cp(join(npmRoot, 'npm'), join(dir, 'usr/local/lib/node_modules/npm'), { recursive: true })
  await symlink('../lib/node_modules/npm/bin/npm-cli.js', join(dir, 'usr/local/bin/npm'))
  await mkdir(join(dir, 'usr/bin'), { recursive: true })
  await symlink('/bin/busybox', join(dir, 'usr/bin/env'))
  if (await exists(CA_BUNDLE)) await place(dir, CA_BUNDLE, CA_BUNDLE)
}

async function place(dir: string, from: string, to: string): Promise<void> {
  await mkdir(dirname(join(dir, to)), { recursive: true })
  await copyFile(from, join(dir, to))
  await chmod(join(dir, to), 0o755)
}

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
    await makeBaseRootfs(join(work, 'base'))
    await makeTar(join(work, 'base'), join(work, 'base.tar'))
    const registry = (await run('npm', ['config', 'get', 'registry'])).stdout.trim()
    const settings = ['PATH=/usr/local/bin:/usr/bin:/bin', `NPM_CONFIG_REGISTRY=${registry}`]
    if (await exists(CA_BUNDLE)) settings.push(`NODE_EXTRA_CA_CERTS=${CA_BUNDLE}`)
    const changes = settings.flatMap(setting => ['--change', `ENV ${setting}`])
    await engine.docker('import', ...changes, join(work, 'base.tar'), BASE_IMAGE)
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
      await until('the container is healthy', async () => {
        const status = await inspect('{{.State.Status}} {{.State.Health.Status}}')
        if (status.startsWith('exited')) throw new Error('the container has ended')
        return status === 'running healthy'
      })
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
