import { createHash } from 'node:crypto'
import { Content, expect, forEach, manifestOf, pushBlob, pushManifest } from './client.ts'
import type { Effort, Figure } from './figure.ts'
import type { Server } from './servers.ts'

const SMALL = new Content(200)
const PAGES = 20
const tagOf = (index: number): string => `t${String(index).padStart(6, '0')}`

/** Lists, and deleting what many tags point to. */
export function listFigures({ tags }: Effort): Figure[] {
  return [tagPage(tags), catalogPage(Math.max(300, tags / 5)), deletion(tags)]
}

function tagPage(tags: number): Figure {
  const name = 'bench/many-tags'
  return {
    name: `a page of 100 of ${tags} tags`,
    unit: 'ms',
    better: 'lower',
    work: 'page',
    prepare: server => pushTags(server, name, tags, 'many tags'),
    // docker-registry 2.8 does not know n; its whole list is counted as its page.
    measure: async server => await pages(server, `/v2/${name}/tags/list?n=100&last=${tagOf(tags / 2)}`, 'tags'),
  }
}

function catalogPage(repositories: number): Figure {
  const nameOf = (index: number): string => `catalog/r${String(index).padStart(6, '0')}`
  return {
    name: `a middle page of 100 of ${repositories} repositories`,
    unit: 'ms',
    better: 'lower',
    work: 'page',
    async prepare(server) {
      await forEach(repositories, 16, async index => {
        await pushBlob(server, nameOf(index), SMALL, 'monolithic')
        await pushManifest(server, nameOf(index), 'v1', manifestOf(SMALL, 'catalog'))
      })
    },
    measure: async server => await pages(server, `/v2/_catalog?n=100&last=${nameOf(repositories / 2)}`, 'repositories'),
  }
}

async function pages(server: Server, path: string, key: string): Promise<{ value: number; work: number }> {
  const started = performance.now()
  for (let page = 0; page < PAGES; page++) {
    const { body } = await expect(200, server, 'GET', path)
    const got = (JSON.parse(body.toString()) as Record<string, string[]>)[key]?.length ?? 0
    if (got < 100) throw new Error(`${server.name}: ${path} gives ${got}`)
  }
  return { value: (performance.now() - started) / PAGES, work: PAGES }
}

function deletion(tags: number): Figure {
  const name = 'bench/popular'
  const digests = new Map<Server, string>()
  let turn = 0
  return {
    name: `deleting a manifest that ${tags} tags point to`,
    unit: 'ms',
    better: 'lower',
    work: 'deletion',
    rounds: 1,
    async warm(server) {
      const note = `popular ${turn++}`
      await pushTags(server, name, tags, note)
      digests.set(server, `sha256:${createHash('sha256').update(manifestOf(SMALL, note)).digest('hex')}`)
    },
    async measure(server) {
      const started = performance.now()
      await expect(202, server, 'DELETE', `/v2/${name}/manifests/${digests.get(server)}`)
      return { value: performance.now() - started, work: 1 }
    },
  }
}

async function pushTags(server: Server, name: string, tags: number, note: string): Promise<void> {
  await pushBlob(server, name, SMALL, 'monolithic')
  const manifest = manifestOf(SMALL, note)
  await forEach(tags, 16, index => pushManifest(server, name, tagOf(index), manifest))
}
