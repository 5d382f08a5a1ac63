import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CRANE, type Output, run, startContainerd, startDockerd } from './clients.ts'
import { makeHost } from './podman-host.ts'

/** A name no resolver knows: that it works shows that the mirror was asked. */
export const NOWHERE = 'upstream.berth.test'

/** A mirror to pull from. */
export interface MirrorAddress {
  /** `http://127.0.0.1:PORT`, where the mirror stands at the root. */
  readonly url: string
  /** `localhost:PORT/PREFIX` */
  readonly byPrefix: string
}

/** Pulls `library/IMAGE:1` into an empty store of its own in `dir`; answers the digest that the client says it has. */
export type Pull = (mirror: MirrorAddress, image: string, dir: string) => Promise<string>

/** Real clients by name, each by the settings that the documentation gives for it. */
export const PULLS: Readonly<Record<string, Pull>> = {
  async skopeo({ byPrefix }, image, dir) {
    await mkdir(dir, { recursive: true })
    const file = join(dir, 'digest')
    const source = `docker://${byPrefix}/library/${image}:1`
    await run('skopeo', [
      'copy',
      '--src-tls-verify=false',
      '--digestfile',
      file,
      source,
      `oci:${join(dir, 'layout')}:1`,
    ])
    return (await readFile(file, 'utf8')).trim()
  },

  async crane({ byPrefix }, image) {
    const reference = `${byPrefix}/library/${image}:1`
    await run(CRANE, ['validate', '--insecure', '--remote', reference])
    return (await run(CRANE, ['digest', '--insecure', reference])).stdout.trim()
  },

  async podman({ byPrefix }, image, dir) {
    const host = await makeHost(dir, byPrefix.split('/')[0] ?? '')
    const conf = [
      '[[registry]]',
      `prefix = "${NOWHERE}"`,
      `location = "${NOWHERE}"`,
      '[[registry.mirror]]',
      `location = "${byPrefix}"`,
      'insecure = true',
    ]
    await writeFile(join(dir, 'registries.conf'), `${conf.join('\n')}\n`)
    const reference = `${NOWHERE}/library/${image}:1`
    await host.podman('pull', '--quiet', reference)
    return (await host.podman('image', 'inspect', '--format', '{{.Digest}}', reference)).stdout.trim()
  },

  containerd: (mirror, image, dir) =>
    pullByContainerd(mirror, image, dir, address => [
      `server = "https://${NOWHERE}"`,
      `[host."${address}"]`,
      'capabilities = ["pull", "resolve"]',
    ]),

  // Nothing is pulled past the mirror.
  'containerd-server': (mirror, image, dir) =>
    pullByContainerd(mirror, image, dir, address => [
      `server = "${address}"`,
      `[host."${address}"]`,
      'capabilities = ["pull", "resolve"]',
    ]),

  async docker({ url }, image, dir) {
    const engine = await startDockerd(dir, { 'registry-mirrors': [url] })
    try {
      await engine.docker('pull', `library/${image}:1`)
      return digestIn(await engine.docker('image', 'inspect', '--format', '{{.RepoDigests}}', `library/${image}:1`))
    } finally {
      await engine.stop()
    }
  },
}

async function pullByContainerd(
  { byPrefix }: MirrorAddress,
  image: string,
  dir: string,
  hostsFile: (address: string) => readonly string[],
): Promise<string> {
  const engine = await startContainerd(dir)
  try {
    const hosts = join(dir, 'certs.d')
    await mkdir(join(hosts, NOWHERE), { recursive: true })
    const lines = hostsFile(`http://${byPrefix.split('/')[0]}`)
    await writeFile(join(hosts, NOWHERE, 'hosts.toml'), `${lines.join('\n')}\n`)
    const reference = `${NOWHERE}/library/${image}:1`
    await engine.ctr('images', 'pull', '--snapshotter', 'native', '--hosts-dir', hosts, reference)
    return digestIn(await engine.ctr('images', 'list', `name==${reference}`))
  } finally {
    await engine.stop()
  }
}

/** The first digest that a client prints. */
function digestIn({ stdout }: Output): string {
  return /sha256:[0-9a-f]{64}/.exec(stdout)?.[0] ?? `no digest in ${stdout}`
}
