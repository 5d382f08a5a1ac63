import { createHash } from 'node:crypto'
import { Content, MANIFEST_TYPE, expect, forEach, manifestOf, pushBlob, pushManifest } from './client.ts'
import { type Effort, type Figure, SideFigure } from './figure.ts'
import type { Server } from './servers.ts'
import { type LoadRequest, load } from './wrk.ts'

const SMALL = new Content(200)

const nameOf = (index: number): string => `bench/app-${index}`
const contentOf = (index: number): Buffer => manifestOf(SMALL, String(index))
const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** What clusters do all day: manifests by tag and by digest, and whether a layer is there. */
export function manifestFigures(effort: Effort): Figure[] {
  const byTag = (index: number): LoadRequest => ({ path: `/v2/${nameOf(index)}/manifests/v1` })
  const byDigest = (index: number): LoadRequest => ({
    path: `/v2/${nameOf(index)}/manifests/${digestOf(contentOf(index))}`,
  })
  const many = effort.everything ? [1, 16, 64] : [16]
  return [
    ...[1, 16, 64].flatMap(connections => loaded(effort, 'manifest GET by tag', connections, byTag)),
    ...many.flatMap(connections => loaded(effort, 'manifest GET by digest', connections, byDigest)),
    blobHeads(effort),
  ]
}

/** Requests a second, and beside it what the slowest of a hundred waits. */
function loaded(
  { repositories, seconds }: Effort,
  what: string,
  connections: number,
  requestOf: (index: number) => LoadRequest,
): Figure[] {
  const name = `${what}, ${connections} connection${connections === 1 ? '' : 's'}`
  const requests = Array.from({ length: repositories }, (_, index) => requestOf(index))
  const p99 = new SideFigure(`${name}, p99`, 'ms', 'request')
  const rate: Figure = {
    name,
    unit: 'requests/s',
    better: 'higher',
    work: 'request',
    prepare: server => fill(server, repositories),
    warm: async server => void (await load(server, requests, connections, 1)),
    async measure(server) {
      const seen = await load(server, requests, connections, seconds)
      p99.note(server, seen.p99Ms)
      return { value: seen.perSecond, work: seen.requests }
    },
  }
  return [rate, p99.figure]
}

/** Whether layers are there, as every push asks. By Node, which is what bounds the rate: wrk cannot read answers to HEAD. */
function blobHeads({ repositories, seconds }: Effort): Figure {
  const count = 1_000 * seconds
  return {
    name: 'blob HEAD, 16 at once',
    unit: 'requests/s',
    better: 'higher',
    work: 'request',
    prepare: server => fill(server, repositories),
    async measure(server) {
      const started = performance.now()
      await forEach(count, 16, async index => {
        await expect(200, server, 'HEAD', `/v2/${nameOf(index % repositories)}/blobs/${SMALL.digest}`)
      })
      return { value: count / ((performance.now() - started) / 1000), work: count }
    },
  }
}

const filled = new Set<string>()

async function fill(server: Server, repositories: number): Promise<void> {
  if (filled.has(server.name)) return
  filled.add(server.name)
  await forEach(repositories, 8, async index => {
    const manifest = contentOf(index)
    const path = `/v2/${nameOf(index)}/manifests/v1`
    await pushBlob(server, nameOf(index), SMALL, 'monolithic')
    await pushManifest(server, nameOf(index), 'v1', manifest)
    const { body, headers } = await expect(200, server, 'GET', path, { headers: { Accept: MANIFEST_TYPE } })
    if (!body.equals(manifest) || headers['docker-content-digest'] !== digestOf(manifest)) {
      throw new Error(`${server.name}: ${path} is not what was pushed`)
    }
  })
}
