import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Output, run } from './clients.ts'

/** A host of its own: its images, its containers and its settings lie under one directory. */
export interface Host {
  podman(...args: string[]): Promise<Output>
  buildah(...args: string[]): Promise<Output>
}

/** Makes one that talks to `registry` over plain HTTP. */
export async function makeHost(dir: string, registry: string): Promise<Host> {
  await mkdir(dir, { recursive: true })
  const containers = [
    '[containers]',
    'default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]',
    '[engine]',
    'runtime = "runc"',
    'cgroup_manager = "cgroupfs"',
    'events_logger = "none"',
  ]
  await writeFile(join(dir, 'containers.conf'), `${containers.join('\n')}\n`)
  await writeFile(join(dir, 'registries.conf'), `[[registry]]\nlocation = "${registry}"\ninsecure = true\n`)
  const env = {
    CONTAINERS_CONF: join(dir, 'containers.conf'),
    CONTAINERS_REGISTRIES_CONF: join(dir, 'registries.conf'),
  }
  const store = ['--root', join(dir, 'root'), '--runroot', join(dir, 'run'), '--storage-driver', 'vfs']
  return {
    podman: (...args) => run('podman', [...store, '--tmpdir', join(dir, 'tmp'), ...args], { env }),
    buildah: (...args) => run('buildah', [...store, ...args], { env }),
  }
}
