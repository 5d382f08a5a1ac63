import type { ApiClient, Row } from '../api-client.ts'
import { type Options, type Result, type Verbs, done, need, path } from '../command.ts'
import { table } from '../output.ts'
import { formatSize, parseSize } from '../sizes.ts'

/** `berth usage …` */
export const usageVerbs: Verbs = {
  '': {
    usage: '[PATTERN] [--days 7] [--limit 100] [--total]',
    about: 'what repositories use, the largest first, and how they grew; --total: the whole registry',
    run: async (api, [pattern], options) =>
      options.total ? await total(api) : await byRepository(api, pattern, options),
  },
}

async function byRepository(api: ApiClient, pattern: string | undefined, options: Options): Promise<Result> {
  const { days, limit } = options
  const rows =
    limit === undefined
      ? await api.all('/usage', { pattern, days })
      : await api.page('/usage', { pattern, days, limit })
  const columns = ['repository', 'size', 'own', 'shared', 'growth', 'blobs', 'manifests', 'tags']
  const text = table(
    columns,
    rows.map(row => ({
      ...row,
      size: row['counted'] === false ? 'not counted yet' : sizeOf(row['bytes']),
      own: sizeOf(row['ownBytes']),
      shared: sizeOf(row['sharedBytes']),
      growth: growthOf(row['growth'] as Row | null),
    })),
  )
  return { text, json: rows }
}

function growthOf(growth: Row | null): string {
  return growth === null ? '-' : `${sizeOf(growth['bytes'])} since ${String(growth['since'])}`
}

async function total(api: ApiClient): Promise<Result> {
  const answer = (await api.call('GET', '/usage/total')) as Row
  const stores = answer['stores'] as readonly Row[]
  const counts = ['repositories', 'manifests', 'tags'].map(what => `${String(answer[what])} ${what}`).join(', ')
  const text = [
    `${counts}\n`,
    `logical   ${sizeOf(answer['logicalBytes'])} (each blob once a repository)\n`,
    `physical  ${sizeOf(answer['physicalBytes'])} (as stored)\n\n`,
    table(
      ['store', 'blobs', 'size', 'trash'],
      stores.map(store => ({ ...store, size: sizeOf(store['bytes']), trash: sizeOf(store['trashBytes']) })),
    ),
  ].join('')
  return { text, json: answer }
}

const QUOTA_COLUMNS = ['pattern', 'measure', 'used', 'limit', 'full', 'counted', 'createdAt', 'createdBy']

/** `berth quota …` */
export const quotaVerbs: Verbs = {
  set: {
    usage: 'PATTERN SIZE [--physical]',
    about: 'limit what the repositories of PATTERN use together; --physical: a blob that several share counts once',
    async run(api, [pattern, size], options) {
      const limitBytes = parseSize(need(size, 'SIZE'))
      const quota = (await api.call('PUT', pathOf(pattern, options), { limitBytes })) as Row
      return done(`${pattern} uses ${sizeOf(quota['usedBytes'])} of ${sizeOf(quota['limitBytes'])}`, quota)
    },
  },
  list: {
    usage: '',
    about: 'quotas with their use',
    async run(api) {
      const rows = await api.all('/quotas')
      return { text: table(QUOTA_COLUMNS, rows.map(shown)), json: rows }
    },
  },
  show: {
    usage: 'PATTERN [--physical]',
    about: 'a quota with its use',
    async run(api, [pattern], options) {
      const quota = (await api.call('GET', pathOf(pattern, options))) as Row
      return { text: table(QUOTA_COLUMNS, [shown(quota)]), json: quota }
    },
  },
  delete: {
    usage: 'PATTERN [--physical]',
    about: 'remove a quota',
    async run(api, [pattern], options) {
      await api.call('DELETE', pathOf(pattern, options))
      return done(`the quota of ${pattern} was removed`)
    },
  },
}

function pathOf(pattern: string | undefined, { physical }: Options): string {
  return path('quotas', physical ? 'physical' : 'logical', need(pattern, 'PATTERN'))
}

function shown(quota: Row): Row {
  const [used, limit] = [Number(quota['usedBytes']), Number(quota['limitBytes'])]
  const full = limit === 0 ? '-' : `${Math.floor((used / limit) * 100)} %`
  return { ...quota, used: formatSize(used), limit: formatSize(limit), full }
}

function sizeOf(bytes: unknown): string {
  return formatSize(Number(bytes))
}
