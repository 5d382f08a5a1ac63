import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { Writable } from 'node:stream'
import {
  Content,
  MANIFEST_TYPE,
  type PushWay,
  expect,
  forEach,
  manifestOf,
  pullBlob,
  pushBlob,
  pushManifest,
} from './client.ts'
import type { Server } from './servers.ts'
import { getManifests } from './wrk.ts'

/** One measurement: the value in the figure's unit, and how many units of work the CPU seconds are divided by. */
export interface Sample {
  readonly value: number
  readonly work: number
}

/** Something that is measured on every registry. */
export interface Figure {
  readonly name: string
  readonly unit: string
  readonly better: 'higher' | 'lower'
  /** What one unit of work is, for the CPU column. */
  readonly work: string
  /** Done once for each registry, unmeasured. */
  prepare?(server: Server): Promise<void>
  /** Done before each sample, unmeasured. */
  warm?(server: Server): Promise<void>
  measure(server: Server, round: number): Promise<Sample>
}

/** How much is done: `quick` shows that everything runs, `normal` is what is quoted. */
export interface Effort {
  readonly repositories: number
  readonly seconds: number
  readonly largeBytes: number
  readonly tagPushes: number
  readonly tags: number
}

export const EFFORTS = {
  quick: { repositories: 100, seconds: 1, largeBytes: 200_000_000, tagPushes: 100, tags: 300 },
  normal: { repositories: 1000, seconds: 5, largeBytes: 1_000_000_000, tagPushes: 1000, tags: 10_000 },
} as const satisfies Record<string, Effort>

const MEGABYTE = 1_000_000
const GIGABYTE = 1_000 * MEGABYTE
const SMALL = new Content(200)
const PULLED = 'bench/pulled'
const TAGGED = 'bench/tagged'

/** Every figure, in the order of the table. Sizes are decimal: a GB is 10⁹ bytes. */
export function figures(effort: Effort): Figure[] {
  return [
    ...[1, 16, 64].map(connections => manifestGets(effort, connections)),
    blobGet('blob GET 100 MB', new Content(100 * MEGABYTE)),
    blobGet(`blob GET ${sizeName(effort.largeBytes)}`, new Content(effort.largeBytes)),
    ...(['streamed', 'monolithic'] as const).flatMap(way => blobPushes(effort.largeBytes, way)),
    parallelPushes(),
    tagPushes(effort),
    tagPage(effort),
  ]
}

function sizeName(bytes: number): string {
  return bytes >= GIGABYTE ? `${bytes / GIGABYTE} GB` : `${bytes / MEGABYTE} MB`
}

function manifestGets({ repositories, seconds }: Effort, connections: number): Figure {
  return {
    name: `manifest GET by tag, ${connections} connection${connections === 1 ? '' : 's'}`,
    unit: 'requests/s',
    better: 'higher',
    work: 'request',
    async prepare(server) {
      await forEach(repositories, 8, async index => {
        const name = `bench/app-${index}`
        const path = `/v2/${name}/manifests/v1`
        const manifest = manifestOf(SMALL, String(index))
        await pushBlob(server, name, SMALL, 'monolithic')
        await pushManifest(server, name, 'v1', manifest)
        const { body, headers } = await expect(200, server, 'GET', path, { headers: { Accept: MANIFEST_TYPE } })
        const digest = `sha256:${createHash('sha256').update(manifest).digest('hex')}`
        if (!body.equals(manifest) || headers['docker-content-digest'] !== digest) {
          throw new Error(`${server.name}: ${path} is not what was pushed`)
        }
      })
    },
    warm: async server => void (await getManifests(server, repositories, connections, 1)),
    async measure(server) {
      const { perSecond, requests } = await getManifests(server, repositories, connections, seconds)
      return { value: perSecond, work: requests }
    },
  }
}

/** How fast one client reads a blob that every registry has. */
export function blobGet(name: string, content: Content): Figure {
  return {
    name,
    unit: 'GB/s',
    better: 'higher',
    work: 'GB',
    async prepare(server) {
      await pushBlob(server, PULLED, content, 'monolithic')
      await pullBlob(server, PULLED, content, true)
    },
    async measure(server) {
      const started = performance.now()
      await pullBlob(server, PULLED, content)
      return rate(content.bytes, started)
    },
  }
}

/** Two figures of one push: how fast it is, and what a client waits for after its last byte. */
export function blobPushes(bytes: number, way: PushWay): Figure[] {
  const waits = new Map<string, number[]>()
  const push: Figure = {
    name: `blob push ${sizeName(bytes)}, ${way}`,
    unit: 'GB/s',
    better: 'higher',
    work: 'GB',
    warm: server => warmMemory(server, bytes),
    async measure(server) {
      const content = new Content(bytes)
      const started = performance.now()
      const waitedMs = await pushBlob(server, 'bench/pushed', content, way)
      waits.set(server.name, [...(waits.get(server.name) ?? []), waitedMs])
      return rate(bytes, started)
    },
  }
  const wait: Figure = {
    name: `last byte to 201, ${sizeName(bytes)}, ${way}`,
    unit: 'ms',
    better: 'lower',
    work: 'push',
    // Taken from the pushes above: a second push of that size would say the same.
    measure: async (server, round) => ({ value: waits.get(server.name)?.[round] ?? Number.NaN, work: 0 }),
  }
  return [push, wait]
}

function rate(bytes: number, started: number): Sample {
  const seconds = (performance.now() - started) / 1000
  return { value: bytes / GIGABYTE / seconds, work: bytes / GIGABYTE }
}

function parallelPushes(): Figure {
  const count = 64
  const bytes = 10 * MEGABYTE
  return {
    name: '64 pushes of 10 MB at once, whole time',
    unit: 's',
    better: 'lower',
    work: 'GB',
    warm: server => warmMemory(server, count * bytes),
    async measure(server) {
      const contents = Array.from({ length: count }, () => new Content(bytes))
      const started = performance.now()
      await Promise.all(contents.map(content => pushBlob(server, 'bench/parallel', content, 'monolithic')))
      return { value: (performance.now() - started) / 1000, work: (count * bytes) / GIGABYTE }
    },
  }
}

function tagPushes({ tagPushes: count }: Effort): Figure {
  return {
    name: 'tag pushes of a small manifest, 16 at once',
    unit: 'pushes/s',
    better: 'higher',
    work: 'push',
    prepare: async server => void (await pushBlob(server, TAGGED, SMALL, 'monolithic')),
    async measure(server, round) {
      const started = performance.now()
      await forEach(count, 16, index =>
        pushManifest(server, TAGGED, `r${round}-${index}`, manifestOf(SMALL, `${round}-${index}`)),
      )
      return { value: count / ((performance.now() - started) / 1000), work: count }
    },
  }
}

function tagPage({ tags }: Effort): Figure {
  const name = 'bench/many-tags'
  const pages = 20
  return {
    name: `a page of 100 of ${tags} tags`,
    unit: 'ms',
    better: 'lower',
    work: 'page',
    async prepare(server) {
      await pushBlob(server, name, SMALL, 'monolithic')
      const manifest = manifestOf(SMALL, 'many tags')
      await forEach(tags, 16, index => pushManifest(server, name, `t${String(index).padStart(6, '0')}`, manifest))
    },
    async measure(server) {
      const last = `t${String(Math.floor(tags / 2)).padStart(6, '0')}`
      const started = performance.now()
      for (let page = 0; page < pages; page++) {
        const { body } = await expect(200, server, 'GET', `/v2/${name}/tags/list?n=100&last=${last}`)
        // docker-registry 2.8 does not know n; its whole list is counted as its page.
        const got = (JSON.parse(body.toString()) as { tags: string[] }).tags.length
        if (got < 100) throw new Error(`${server.name}: a page of ${got} tags`)
      }
      return { value: (performance.now() - started) / pages, work: pages }
    },
  }
}

/**
 * Writes and removes a file of that size twice. On a virtual machine the first touch of memory that the host had taken
 * back costs several times what the write costs, and whoever is measured first would pay it.
 */
export async function warmMemory(server: Server, bytes: number): Promise<void> {
  const path = join(server.dataDir, 'warm')
  const content = new Content(bytes)
  for (let turn = 0; turn < 2; turn++) {
    await writeFile(path, content.chunks())
    await pipeline(
      createReadStream(path, { highWaterMark: MEGABYTE }),
      new Writable({ write: (_c, _e, done) => done() }),
    )
    await rm(path)
  }
}
