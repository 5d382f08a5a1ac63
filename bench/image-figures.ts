import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Content, MANIFEST_TYPE } from './client.ts'
import type { Effort, Figure } from './figure.ts'
import type { Server } from './servers.ts'

const LAYERS = 10
const REPOSITORY = 'bench/image'

/** Whole images, by a program that people use. */
export function imageFigures({ layerBytes }: Effort): Figure[] {
  const size = `${LAYERS} layers of ${layerBytes / 1e6} MB`
  return [
    {
      name: `skopeo pushes an image, ${size}`,
      unit: 's',
      better: 'lower',
      work: 'image',
      async measure(server) {
        return await inDirectory(async directory => {
          await writeLayout(directory, layerBytes)
          return await timed(() => copy(`oci:${directory}:image`, remote(server, 'pushed'), '--dest-tls-verify=false'))
        })
      },
    },
    {
      name: `skopeo pulls an image, ${size}`,
      unit: 's',
      better: 'lower',
      work: 'image',
      async prepare(server) {
        await inDirectory(async directory => {
          await writeLayout(directory, layerBytes)
          await copy(`oci:${directory}:image`, remote(server, 'pulled'), '--dest-tls-verify=false')
        })
      },
      async measure(server) {
        // skopeo checks every digest.
        return await inDirectory(directory =>
          timed(() => copy(remote(server, 'pulled'), `dir:${join(directory, 'image')}`, '--src-tls-verify=false')),
        )
      },
    },
  ]
}

function remote(server: Server, tag: string): string {
  return `docker://${new URL(server.url).host}/${REPOSITORY}:${tag}`
}

async function copy(from: string, to: string, flag: string): Promise<void> {
  await promisify(execFile)('skopeo', ['--insecure-policy', 'copy', '--quiet', flag, from, to])
}

async function timed(work: () => Promise<void>): Promise<{ value: number; work: number }> {
  const started = performance.now()
  await work()
  return { value: (performance.now() - started) / 1000, work: 1 }
}

async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(process.env['BERTH_BENCH_DIR'] ?? tmpdir(), 'berth-image-'))
  try {
    return await work(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

/** An image that no registry has seen, as an OCI layout; its layers look compressed, so that skopeo leaves them alone. */
async function writeLayout(directory: string, layerBytes: number): Promise<void> {
  const blobs = join(directory, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })
  const write = async (bytes: Buffer): Promise<{ digest: string; size: number }> => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(blobs, hex), bytes)
    return { digest: `sha256:${hex}`, size: bytes.byteLength }
  }
  const layers = []
  for (let layer = 0; layer < LAYERS; layer++) {
    const content = new Content(layerBytes)
    await writeFile(join(blobs, content.digest.slice('sha256:'.length)), content.chunks())
    layers.push({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: content.digest,
      size: content.bytes,
    })
  }
  const diffIds = layers.map(({ digest }) => digest)
  const config = { architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } }
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: {
      mediaType: 'application/vnd.oci.image.config.v1+json',
      ...(await write(Buffer.from(JSON.stringify(config)))),
    },
    layers,
  }
  const entry = { mediaType: MANIFEST_TYPE, ...(await write(Buffer.from(JSON.stringify(manifest)))) }
  const annotations = { 'org.opencontainers.image.ref.name': 'image' }
  await writeFile(
    join(directory, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...entry, annotations }] }),
  )
  await writeFile(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
}
