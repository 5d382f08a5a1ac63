import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import {
  type IsolatedDockerEngine,
  type Output,
  REPOSITORY_ROOT,
  layoutDescriptor,
  makeLayout,
  printedDigest,
  removeScratch,
  run,
  scratch,
  startDockerd,
  startIsolatedDockerd,
  until,
} from '../support/clients.ts'
import {
  importHaproxyImage,
  importNodeImage,
  importPostgresImage,
  importVersitygwImage,
} from '../support/stand-in-images.ts'

const COMPOSE = join(REPOSITORY_ROOT, '.cache', 'bin', 'docker-compose')
/** Of the network for documentation (RFC 5737): an address that the engine speaks TLS to. */
const HOST = '192.0.2.1'
const PROCESSES = ['berth-1', 'berth-2'] as const
/** More than a part of a multipart upload to S3, and than any buffer of a proxy. */
const LAYER_BYTES = 40 * 1024 * 1024
const START_LIMIT_MS = 180_000

interface Service {
  readonly image: string
  readonly user?: string
  readonly build?: { readonly platforms: readonly string[] }
  readonly read_only?: boolean
  readonly cap_drop?: readonly string[]
  readonly cap_add?: readonly string[]
  readonly security_opt?: readonly string[]
  readonly restart?: string
  readonly healthcheck?: object
  readonly volumes?: readonly { readonly type: string; readonly source: string }[]
  readonly environment?: Readonly<Record<string, string>>
}

describe('docker-compose.yml', { timeout: 600_000 }, () => {
  let work: string
  let project: string
  let engine: IsolatedDockerEngine
  let services: Readonly<Record<string, Service>>
  let adminPassword: string
  let layout: string
  let digest: string

  before(async () => {
    work = await scratch()
    project = join(work, 'project')
    for (const path of ['docker-compose.yml', 'deploy']) {
      await cp(join(REPOSITORY_ROOT, path), join(project, path), { recursive: true })
    }
    await run(join(project, 'deploy', 'make-secrets.sh'), [HOST])
    adminPassword = (await readFile(join(project, 'secrets', 'admin-password'), 'utf8')).trim()
    const config = await run(COMPOSE, ['config', '--format', 'json'], { cwd: project })
    services = (JSON.parse(config.stdout) as { services: Record<string, Service> }).services
    await makeImages()
    engine = await startIsolatedDockerd(join(work, 'd'), {
      address: HOST,
      authority: join(project, 'secrets', 'tls.crt'),
    })
    await composeUp()
    layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello\n' }])
    const layer = join(work, 'layer')
    await writeFile(layer, randomBytes(LAYER_BYTES))
    await run('umoci', ['insert', '--image', `${layout}:latest`, layer, '/large'])
    await run('umoci', ['gc', '--layout', layout])
    digest = (await layoutDescriptor(layout)).digest
  })

  after(async () => {
    if (engine !== undefined) await compose('down', '--volumes', '--timeout', '10').catch(() => undefined)
    await engine?.stop()
    await removeScratch(work)
  })

  /** Builds Berth's image and makes stand-ins for the others, on an engine that reaches the package registry. */
  async function makeImages(): Promise<void> {
    const builder = await startDockerd(join(work, 'd'))
    try {
      await importNodeImage(builder.docker, work, 'node:24-bookworm-slim')
      await importPostgresImage(builder.docker, work, imageOf('postgres'))
      await importHaproxyImage(builder.docker, work, imageOf('proxy'))
      await importVersitygwImage(builder.docker, work, imageOf('objects'))
      await builder.docker('build', '--network', 'host', '--tag', imageOf('berth-1'), REPOSITORY_ROOT)
    } finally {
      await builder.stop()
    }
  }

  function imageOf(name: string): string {
    const service = services[name]
    assert.ok(service, `docker-compose.yml has a service ${name}`)
    return service.image
  }

  async function compose(...args: string[]): Promise<Output> {
    const env = { DOCKER_HOST: `unix://${engine.socket}` }
    return await run(COMPOSE, args, { cwd: project, env, limitMs: START_LIMIT_MS })
  }

  async function composeUp(): Promise<void> {
    try {
      await compose('up', '--detach', '--wait', '--no-build', '--pull', 'never')
    } catch (cause) {
      const { stdout } = await compose('logs', '--tail', '40')
      throw new Error(stdout, { cause })
    }
    await untilBalanced()
  }

  /** Waits until the proxy has heard from each process that it is ready. */
  async function untilBalanced(): Promise<void> {
    for (const name of PROCESSES) {
      await until(`the proxy finds ${name} ready`, async () => (await answeredSince(name)).includes(200), 120_000)
    }
  }

  /** What a process has answered to /readyz since its start. */
  async function answeredSince(name: string): Promise<unknown[]> {
    const started = await inspect(name, '{{.State.StartedAt}}')
    const { stdout } = await engine.docker('logs', '--since', started, await idOf(name))
    const lines = stdout.split('\n').filter(line => line.includes('/readyz'))
    return lines.map(line => (JSON.parse(line) as { status: unknown }).status)
  }

  async function berth(process: (typeof PROCESSES)[number], ...args: string[]): Promise<string> {
    return (await compose('exec', '-T', process, 'berth', ...args)).stdout
  }

  async function skopeo(command: string, ...args: string[]): Promise<Output> {
    return await engine.runInside('skopeo', [command, ...args], { env: { SSL_CERT_FILE: certificate() } })
  }

  function certificate(): string {
    return join(project, 'secrets', 'tls.crt')
  }

  /** Runs a program on the engine's network. */
  async function node(...args: string[]): Promise<Output> {
    const env = { NODE_EXTRA_CA_CERTS: certificate(), CREDENTIALS: `admin:${adminPassword}` }
    return await engine.runInside(process.execPath, args, { env })
  }

  async function push(repository: string): Promise<void> {
    const target = `docker://${HOST}/${repository}:1`
    await skopeo('copy', '--dest-creds', `admin:${adminPassword}`, `oci:${layout}:latest`, target)
  }

  /** Pulls without a login. @returns the digest of what came. */
  async function pull(repository: string): Promise<string> {
    const out = await scratch()
    try {
      await skopeo('copy', '--src-no-creds', `docker://${HOST}/${repository}:1`, `oci:${out}:latest`)
      return (await layoutDescriptor(out)).digest
    } finally {
      await removeScratch(out)
    }
  }

  function isSame(pulled: string): boolean {
    return pulled === digest
  }

  async function idOf(service: string): Promise<string> {
    return (await compose('ps', '--all', '--quiet', service)).stdout.trim()
  }

  async function inspect(service: string, format: string): Promise<string> {
    return (await engine.docker('inspect', '--format', format, await idOf(service))).stdout.trim()
  }

  async function addressOf(service: string): Promise<string> {
    return await inspect(service, '{{(index .NetworkSettings.Networks "berth_front").IPAddress}}')
  }

  it('declares the image for amd64 and arm64', () => {
    for (const name of PROCESSES) {
      assert.deepEqual(services[name]?.build?.platforms, ['linux/amd64', 'linux/arm64'])
    }
  })

  it('keeps the secrets and the certificate that are there', async () => {
    const names = ['admin-password', 'database-url', 's3-secret-access-key', 'tls.crt', 'tls.key']
    const read = (): Promise<string[]> =>
      Promise.all(names.map(name => readFile(join(project, 'secrets', name), 'utf8')))
    const before = await read()
    await run(join(project, 'deploy', 'make-secrets.sh'), ['another.example'])

    assert.deepEqual(await read(), before)
  })

  it('gives every container a read-only root, no capability and a way back', () => {
    for (const [name, service] of Object.entries(services)) {
      assert.equal(service.read_only, true, name)
      assert.deepEqual(service.cap_drop, ['ALL'], name)
      assert.deepEqual(service.security_opt, ['no-new-privileges:true'], name)
      if (name === 'objects-directory') continue
      assert.equal(service.cap_add, undefined, name)
      assert.equal(service.restart, 'unless-stopped', name)
      assert.ok(service.healthcheck, name)
    }
  })

  it('keeps secrets out of the environment', async () => {
    for (const name of [...PROCESSES, 'postgres', 'objects', 'proxy']) {
      const environment = await inspect(name, '{{json .Config.Env}}')
      for (const secret of ['admin-password', 'postgres-password', 's3-secret-access-key']) {
        const value = (await readFile(join(project, 'secrets', secret), 'utf8')).trim()
        assert.ok(!environment.includes(value), `${name} has ${secret} in its environment`)
      }
    }
  })

  it('runs every process as an ordinary user', async () => {
    for (const name of [...PROCESSES, 'postgres', 'objects', 'proxy']) {
      assert.notEqual((await compose('exec', '-T', name, 'id', '-u')).stdout.trim(), '0', name)
    }
  })

  it('is administered through any of its processes', async () => {
    await berth('berth-1', 'grant', 'add', 'everyone', 'pull', 'public/**')

    assert.match(await berth('berth-2', 'grant', 'list'), /public\/\*\*/)
  })

  it('takes what skopeo pushes and gives it to the Docker engine, through TLS', async () => {
    await push('public/skopeo')

    const pulled = await engine.docker('pull', `${HOST}/public/skopeo:1`)
    assert.equal(printedDigest(pulled), digest)
  })

  it('takes what the Docker engine pushes and gives it to skopeo', async () => {
    await engine.docker('login', '--username', 'admin', '--password', adminPassword, HOST)
    await engine.docker('tag', imageOf('objects'), `${HOST}/public/docker:1`)
    const pushed = printedDigest(await engine.docker('push', `${HOST}/public/docker:1`))

    const { stdout } = await skopeo(
      'inspect',
      '--no-creds',
      '--format',
      '{{.Digest}}',
      `docker://${HOST}/public/docker:1`,
    )
    assert.equal(stdout.trim(), pushed)
  })

  it('believes the proxy, and not the client, where the client is', async () => {
    const agent = 'somebody who lies'
    const headers = JSON.stringify({ 'X-Forwarded-For': '203.0.113.9', 'User-Agent': agent })
    await node('--input-type=module', '-e', `await fetch('https://${HOST}/healthz', { headers: ${headers} })`)
    const logs = await Promise.all(PROCESSES.map(name => compose('logs', '--no-log-prefix', name)))
    const [line] = logs.flatMap(({ stdout }) => stdout.split('\n')).filter(text => text.includes(agent))

    assert.ok(line, 'the request is in a log')
    assert.equal((JSON.parse(line) as { client: string }).client, HOST)
  })

  it('passes an upload on while it is being sent', async () => {
    const addresses = await Promise.all(PROCESSES.map(addressOf))
    const metrics = addresses.map(address => `http://${address}:5001/metrics`)
    const program = join(REPOSITORY_ROOT, 'test', 'support', 'streamed-upload.ts')

    assert.equal((await node(program, `https://${HOST}`, 'public/streamed', ...metrics)).stdout, '202 0-1048575\n')
  })

  it('loses no request while a process is replaced', async () => {
    const stop = join(work, 'stop')
    const program = join(REPOSITORY_ROOT, 'test', 'support', 'steady-uploads.ts')
    const restart = async (): Promise<void> => {
      try {
        await compose('restart', 'berth-2')
      } finally {
        await writeFile(stop, '')
      }
    }
    const [{ stdout }] = await Promise.all([node(program, `https://${HOST}`, 'public/steady', stop), restart()])

    assert.equal(stdout, 'some uploads, faults: []\n')
    await untilBalanced()
  })

  it('goes on while one process is dead', async () => {
    await compose('kill', 'berth-1')
    await push('public/without-one')

    assert.equal(await pull('public/skopeo'), digest)
    assert.equal(await pull('public/without-one'), digest)
    await composeUp()
  })

  it('answers 503 with Retry-After while Postgres is away (RFC 9110, section 15.6.4), and goes on when it is back', async () => {
    const started = await Promise.all(PROCESSES.map(name => inspect(name, '{{.State.StartedAt}}')))
    await compose('kill', 'postgres')
    const ask = `const headers = { Authorization: 'Basic ' + btoa(process.env.CREDENTIALS) }
      const answer = await fetch('https://${HOST}/v2/public/skopeo/manifests/1', { headers })
      const { errors: [{ code }] } = await answer.json()
      console.log(answer.status, answer.headers.get('retry-after'), code)`
    const { stdout } = await node('--input-type=module', '-e', ask)
    await compose('start', 'postgres')

    assert.match(stdout, /^503 \d+ UNAVAILABLE$/m)
    await until('images can be pulled again', () => pull('public/skopeo').then(isSame, () => false), 120_000)
    assert.deepEqual(await Promise.all(PROCESSES.map(name => inspect(name, '{{.State.StartedAt}}'))), started)
  })

  it('brings a process back that has died', async () => {
    process.kill(Number(await inspect('berth-1', '{{.State.Pid}}')), 'SIGKILL')

    const state = '{{.RestartCount}} {{.State.Health.Status}}'
    await until(
      'the container is healthy again',
      async () => (await inspect('berth-1', state)) === '1 healthy',
      120_000,
    )
    await untilBalanced()
  })

  it('ends every process in order when it is taken down, and has everything when it is up again', async () => {
    await compose('stop', ...PROCESSES)
    for (const name of PROCESSES) assert.equal(await inspect(name, '{{.State.ExitCode}}'), '0', name)
    await compose('down')
    await composeUp()

    assert.equal(await pull('public/skopeo'), digest)
    assert.equal(await pull('public/without-one'), digest)
    await push('public/after')
    assert.equal(await pull('public/after'), digest)
  })
})
