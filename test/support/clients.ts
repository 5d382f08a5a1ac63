import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { openSync, closeSync } from 'node:fs'
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { LogLine, TestServer } from './server.ts'

const RUN_LIMIT_MS = 120_000
/** An image is built by it, which takes a minute where nothing else runs. */
const DOCKER_LIMIT_MS = 400_000
const START_LIMIT_MS = 30_000
const STOP_LIMIT_MS = 20_000
const POLL_MS = 50
const SHOWN_CHARS = 6_000

export const REPOSITORY_ROOT = join(import.meta.dirname, '..', '..')
export const CRANE = join(REPOSITORY_ROOT, '.cache', 'bin', 'crane')

/** What a finished command printed. */
export interface Output {
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly limitMs?: number
}

/** Runs a command to its end. @throws with the command line and all it said when it fails or takes too long. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Output> {
  const limitMs = options.limitMs ?? RUN_LIMIT_MS
  const child = spawn(command, args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  let late = false
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const limit = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, limitMs)
  try {
    await once(child, 'close')
  } catch (cause) {
    throw new Error(`${command} could not be started`, { cause })
  } finally {
    clearTimeout(limit)
  }
  if (late || child.exitCode !== 0) {
    const ended = late ? `took more than ${limitMs} ms` : `ended with ${child.exitCode ?? child.signalCode}`
    throw new Error(
      `${[command, ...args].join(' ')}\n${ended}\n${stdout.slice(-SHOWN_CHARS)}\n${stderr.slice(-SHOWN_CHARS)}`,
    )
  }
  return { stdout, stderr }
}

/** Asks `condition` until it holds. @throws with `what` when it does not within the limit. */
export async function until(
  what: string,
  condition: () => Promise<boolean>,
  limitMs: number = START_LIMIT_MS,
): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`within ${limitMs} ms it did not come about: ${what}`)
    await delay(POLL_MS)
  }
}

/** A scratch directory with a short name: sockets' paths are limited to 107 bytes. */
export async function scratch(): Promise<string> {
  return await mkdtemp(join(tmpdir(), 'bc-'))
}

/** Removes a scratch directory, after unmounting what an engine has left mounted in it. */
export async function removeScratch(dir: string): Promise<void> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map(line => line.split(' ')[1] ?? '')
  for (const mount of mounts.filter(path => path.startsWith(`${dir}/`)).toReversed()) await run('umount', [mount])
  await rm(dir, { recursive: true, force: true })
}

/** Makes a root file system of Debian's static busybox: a shell and its friends, and an /etc/passwd. */
export async function makeRootfs(dir: string): Promise<void> {
  for (const name of ['bin', 'etc', 'tmp', 'proc', 'sys', 'dev']) await mkdir(join(dir, name), { recursive: true })
  await copyFile('/usr/bin/busybox', join(dir, 'bin', 'busybox'))
  await chmod(join(dir, 'bin', 'busybox'), 0o755)
  await chmod(join(dir, 'tmp'), 0o1777)
  const { stdout } = await run('/usr/bin/busybox', ['--list'])
  for (const name of stdout.split('\n').filter(name => name !== '' && name !== 'busybox')) {
    await symlink('busybox', join(dir, 'bin', name))
  }
  await writeFile(join(dir, 'etc', 'passwd'), 'root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n')
  await writeFile(join(dir, 'etc', 'group'), 'root:x:0:\nnode:x:1000:\n')
}

/** Packs a directory as a tar with the owners it has, ready for `docker import`. */
export async function makeTar(dir: string, file: string): Promise<void> {
  await run('tar', ['--numeric-owner', '-C', dir, '-cf', file, '.'])
}

export interface LayerFile {
  readonly path: string
  readonly content: string
}

/**
 * Makes an OCI layout with one tagged image: the busybox base as its first layer, then one layer for each of `files`.
 * It runs `/bin/cat` on the first of them.
 */
export async function makeLayout(work: string, name: string, files: readonly LayerFile[]): Promise<string> {
  const layout = join(work, name)
  const image = `${layout}:latest`
  await run('umoci', ['init', '--layout', layout])
  await run('umoci', ['new', '--image', image])
  const base = join(work, `${name}-base`)
  await makeRootfs(base)
  await run('umoci', ['insert', '--image', image, base, '/'])
  for (const [index, { path, content }] of files.entries()) {
    const source = join(work, `${name}-layer${index}`)
    await writeFile(source, content)
    await run('umoci', ['insert', '--image', image, source, path])
  }
  const command = ['/bin/cat', files[0]?.path ?? '/etc/passwd'].flatMap(word => ['--config.cmd', word])
  await run('umoci', ['config', '--image', image, '--config.env', 'PATH=/bin', ...command])
  await run('umoci', ['gc', '--layout', layout])
  return layout
}

interface Descriptor {
  readonly mediaType: string
  readonly digest: string
  readonly size: number
}

interface Index {
  readonly manifests: readonly Descriptor[]
}

/** The descriptor of the image a layout holds. */
export async function layoutDescriptor(layout: string): Promise<Descriptor> {
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as Index
  const [only] = index.manifests
  if (only === undefined || index.manifests.length !== 1) throw new Error(`${layout} does not hold exactly one image`)
  return only
}

/** Writes bytes into a layout's blobs. */
export async function addToLayout(layout: string, content: string, mediaType: string): Promise<Descriptor> {
  const hex = createHash('sha256').update(content).digest('hex')
  const file = join(layout, 'blobs', 'sha256', hex)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, content)
  return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(content) }
}

/** Makes a layout whose one image is an index of two platforms, from one image. */
export async function makeMultiArchLayout(layout: string): Promise<string> {
  const amd64 = await layoutDescriptor(layout)
  const manifest = JSON.parse(await readFile(blobPath(layout, amd64.digest), 'utf8')) as { config: Descriptor }
  const config = JSON.parse(await readFile(blobPath(layout, manifest.config.digest), 'utf8')) as object
  const armConfig = await addToLayout(
    layout,
    JSON.stringify({ ...config, architecture: 'arm64' }),
    manifest.config.mediaType,
  )
  const arm64 = await addToLayout(layout, JSON.stringify({ ...manifest, config: armConfig }), amd64.mediaType)
  const platformed = [
    { mediaType: amd64.mediaType, digest: amd64.digest, size: amd64.size, platform: platform('amd64') },
    { ...arm64, platform: platform('arm64') },
  ]
  const mediaType = 'application/vnd.oci.image.index.v1+json'
  const index = await addToLayout(
    layout,
    JSON.stringify({ schemaVersion: 2, mediaType, manifests: platformed }),
    mediaType,
  )
  const top = { ...index, annotations: { 'org.opencontainers.image.ref.name': 'latest' } }
  await writeFile(join(layout, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [top] }))
  return index.digest
}

function platform(architecture: string): { architecture: string; os: string } {
  return { architecture, os: 'linux' }
}

function blobPath(layout: string, digest: string): string {
  return join(layout, 'blobs', ...digest.split(':'))
}

/** An engine that runs as a process of its own. */
export interface Engine {
  readonly socket: string
  stop(): Promise<void>
}

/** A Docker engine and its command. */
export interface DockerEngine extends Engine {
  readonly docker: (...args: string[]) => Promise<Output>
}

/**
 * Starts a Docker engine with a data root of its own, so that it is a host of its own, on this machine's network; `config`
 * is its `daemon.json`.
 */
export async function startDockerd(dir: string, config: object = {}): Promise<DockerEngine> {
  const args = ['--iptables=false', '--ip6tables=false', '--bridge=none']
  return await launchDockerd(dir, ['/usr/sbin/dockerd', ...args], config)
}

/** A Docker engine whose machine has a network of its own: bridges, published ports and rules of it are nobody else's. */
export interface IsolatedDockerEngine extends DockerEngine {
  /** Runs a command on that network. */
  readonly runInside: (command: string, args: readonly string[], options?: RunOptions) => Promise<Output>
}

/**
 * Starts a Docker engine in a network namespace of its own, which ends with it.
 * @param address a second address of its loopback, because Docker takes 127.0.0.0/8 for a place that needs no TLS
 * @param authority file with the certificates (PEM) that the engine trusts
 */
export async function startIsolatedDockerd(
  dir: string,
  { address, authority }: { address: string; authority: string },
): Promise<IsolatedDockerEngine> {
  const start = `ip link set lo up && ip address add ${address}/32 dev lo && exec /usr/sbin/dockerd "$@"`
  const command = ['unshare', '--net', 'sh', '-c', start, 'dockerd']
  const engine = await launchDockerd(dir, command, {}, { SSL_CERT_FILE: authority })
  const pid = (await readFile(join(dir, 'pid'), 'utf8')).trim()
  return {
    ...engine,
    runInside: (command, words, options) => run('nsenter', [`--net=/proc/${pid}/ns/net`, command, ...words], options),
  }
}

async function launchDockerd(
  dir: string,
  [command = '', ...first]: readonly string[],
  config: object,
  env?: Readonly<Record<string, string>>,
): Promise<DockerEngine> {
  await mkdir(dir, { recursive: true })
  const socket = join(dir, 'docker.sock')
  const args = [
    ...first,
    '--host',
    `unix://${socket}`,
    '--data-root',
    join(dir, 'data'),
    '--exec-root',
    join(dir, 'exec'),
  ]
  args.push('--pidfile', join(dir, 'pid'), '--config-file', join(dir, 'daemon.json'), '--storage-driver', 'overlay2')
  await writeFile(join(dir, 'daemon.json'), `${JSON.stringify(config)}\n`)
  await mkdir(join(dir, 'config'), { recursive: true })
  const docker = (...words: string[]): Promise<Output> =>
    run('/usr/bin/docker', ['--host', `unix://${socket}`, ...words], {
      env: { DOCKER_CONFIG: join(dir, 'config'), DOCKER_BUILDKIT: '0' },
      limitMs: DOCKER_LIMIT_MS,
    })
  const engine = await startEngine(command, args, dir, () => docker('version'), env)
  return { socket, docker, stop: engine }
}

/** Starts a containerd with a root of its own. */
export async function startContainerd(dir: string): Promise<Engine & { ctr: (...args: string[]) => Promise<Output> }> {
  await mkdir(dir, { recursive: true })
  const socket = join(dir, 'c.sock')
  const config = join(dir, 'config.toml')
  await writeFile(config, 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
  const args = ['--config', config, '--address', socket, '--root', join(dir, 'root'), '--state', join(dir, 'state')]
  const ctr = (...words: string[]): Promise<Output> => run('ctr', ['--address', socket, ...words])
  const stop = await startEngine('containerd', args, dir, () => ctr('version'))
  return { socket, ctr, stop }
}

/** Starts `command`, waits until `probe` succeeds, and returns what stops it. Its log is `DIR/engine.log`. */
async function startEngine(
  command: string,
  args: readonly string[],
  dir: string,
  probe: () => Promise<unknown>,
  env: Readonly<Record<string, string>> = {},
): Promise<() => Promise<void>> {
  const logFile = join(dir, 'engine.log')
  const log = openSync(logFile, 'a')
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', log, log] })
  closeSync(log)
  let startError: Error | undefined
  child.once('error', error => (startError = error))
  try {
    await until(`${command} answers`, async () => {
      if (startError !== undefined) throw startError
      if (hasEnded(child)) throw new Error(`${command} ended with ${child.exitCode ?? child.signalCode}`)
      return await probe().then(
        () => true,
        () => false,
      )
    })
  } catch (error) {
    await stopChild(child)
    throw new Error(`${command} did not come up\n${(await readFile(logFile, 'utf8')).slice(-SHOWN_CHARS)}`, {
      cause: error,
    })
  }
  return () => stopChild(child)
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || hasEnded(child)) return
  const ended = once(child, 'close')
  child.kill('SIGTERM')
  const limit = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
  await ended
  clearTimeout(limit)
}

/** The digest in what `docker push` and `docker pull` print. @throws when there is none. */
export function printedDigest(output: Output): string {
  const [digest] = /sha256:[0-9a-f]{64}(?= size:|\s*$|\n)/m.exec(output.stdout) ?? []
  assert.ok(digest, `no digest in: ${output.stdout}`)
  return digest
}

/** Whether a file is there. */
export async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}

/** The lines of the access log that `action` brought about. */
export async function requestsDuring(server: TestServer, action: () => Promise<unknown>): Promise<LogLine[]> {
  const start = server.log.length
  await action()
  // The log reaches us by a pipe: once a request of our own is in it, so are those before it.
  const requestId = randomUUID()
  await (await fetch(`${server.url}/v2/`, { headers: { 'X-Request-Id': requestId } })).arrayBuffer()
  await until('the access log is complete', async () => server.log.some(line => line['requestId'] === requestId))
  return server.log.slice(start).filter(line => typeof line['method'] === 'string' && line['requestId'] !== requestId)
}
