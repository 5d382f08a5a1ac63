import { createReadStream } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Content, type PushWay, forEach, manifestOf, pullBlob, pushBlob, pushManifest } from './client.ts'
import { type Effort, type Figure, type Sample, SideFigure } from './figure.ts'
import type { Server } from './servers.ts'

const MEGABYTE = 1_000_000
const GIGABYTE = 1_000 * MEGABYTE
const SMALL = new Content(200)
const PULLED = 'bench/pulled'
const TAGGED = 'bench/tagged'

/** How layers move and what they cost, and the pushes of a CI fleet. */
export function blobFigures(effort: Effort): Figure[] {
  const large = new Content(effort.largeBytes)
  const size = sizeName(effort.largeBytes)
  return [
    blobGet('blob GET 100 MB', new Content(100 * MEGABYTE)),
    blobGet(`blob GET ${size}`, large),
    blobGet(`blob GET ${size}, 4 at once`, large, 4),
    ...(['streamed', 'monolithic'] as const).flatMap(way => blobPushes(effort.largeBytes, way)),
    parallelPushes(),
    tagPushes(effort),
  ]
}

function sizeName(bytes: number): string {
  return bytes >= GIGABYTE ? `${bytes / GIGABYTE} GB` : `${bytes / MEGABYTE} MB`
}

/** How fast clients read a blob that every registry has, together. */
export function blobGet(name: string, content: Content, atOnce = 1): Figure {
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
      await Promise.all(Array.from({ length: atOnce }, () => pullBlob(server, PULLED, content)))
      return rate(content.bytes * atOnce, started)
    },
  }
}

/** Two figures of one push: how fast it is, and what a client waits for after its last byte. */
export function blobPushes(bytes: number, way: PushWay): Figure[] {
  const wait = new SideFigure(`last byte to 201, ${sizeName(bytes)}, ${way}`, 'ms', 'push')
  const push: Figure = {
    name: `blob push ${sizeName(bytes)}, ${way}`,
    unit: 'GB/s',
    better: 'higher',
    work: 'GB',
    warm: server => warmMemory(server, bytes),
    async measure(server) {
      const content = new Content(bytes)
      const started = performance.now()
      wait.note(server, await pushBlob(server, 'bench/pushed', content, way))
      return rate(bytes, started)
    },
  }
  return [push, wait.figure]
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
