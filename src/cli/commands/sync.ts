import { setTimeout as delay } from 'node:timers/promises'
import { type ApiClient, ApiRefusal, type Row } from '../api-client.ts'
import { type Result, type Verbs, done, need, path } from '../command.ts'
import { bytes, table } from '../output.ts'

const POLL_MS = 500

/** `berth sync …` */
export const syncVerbs: Verbs = {
  list: {
    usage: '',
    about: 'the syncs of the settings',
    run: async api => {
      const syncs = (await api.all('/syncs')).map(({ lastRun, ...sync }) => {
        const last = lastRun as Row | null
        return { ...sync, lastRun: last === null ? null : `${cell(last, 'state')} ${cell(last, 'createdAt')}` }
      })
      return {
        rows: syncs,
        columns: ['name', 'direction', 'url', 'repositories', 'schedule', 'timeZone', 'nextRunAt', 'lastRun'],
      }
    },
  },
  run: {
    usage: 'NAME [--dry-run] [--detach]',
    about: 'copy what is not there yet; with --dry-run only say what that is, with --detach do not wait for the end',
    async run(api, [name], options) {
      const started = (await api.call('POST', path('syncs', need(name, 'NAME'), 'runs'), {
        dryRun: options['dry-run'],
      })) as Row
      const id = String(started['id'])
      if (options.detach) return done(`run ${id} of sync ${name} has begun: berth sync status ${name}`, started)
      return await end(api, id)
    },
  },
  status: {
    usage: 'NAME',
    about: 'how far the last run of a sync is, and what it could not copy',
    async run(api, [name]) {
      const [run] = await api.page('/sync-runs', { sync: need(name, 'NAME'), limit: '1' })
      if (run === undefined) throw new ApiRefusal(`sync ${name} has never run: berth sync run ${name}`)
      return await show(api, run, 'failed')
    },
  },
  stop: {
    usage: 'NAME',
    about: 'stop the run of a sync that is under way; what was copied stays',
    async run(api, [name]) {
      await api.call('DELETE', path('syncs', need(name, 'NAME'), 'run'))
      return done(`the run of sync ${name} was stopped`)
    },
  },
  runs: {
    usage: '[NAME]',
    about: 'runs, newest first',
    run: async (api, [sync]) => ({
      rows: await api.page('/sync-runs', { sync }),
      columns: [
        'id',
        'sync',
        'dryRun',
        'state',
        'images',
        'copied',
        'upToDate',
        'toCopy',
        'skipped',
        'failed',
        'bytes',
        'askedBy',
        'createdAt',
        'error',
      ],
    }),
  },
  show: {
    usage: 'RUN',
    about: 'what came of each image of a run',
    run: async (api, [run]) => await show(api, await read(api, need(run, 'RUN')), undefined),
  },
}

async function read(api: ApiClient, id: string): Promise<Row> {
  return (await api.call('GET', path('sync-runs', id))) as Row
}

/** Waits until a run has come to its end and shows it. @throws ApiRefusal where it, or an image of it, failed. */
async function end(api: ApiClient, id: string): Promise<Result> {
  let run = await read(api, id)
  while (run['state'] === 'waiting' || run['state'] === 'running') {
    await delay(POLL_MS)
    run = await read(api, id)
  }
  const shown = await show(api, run, undefined)
  if (run['state'] === 'failed' || run['failed'] !== 0) throw new ApiRefusal(shown.text)
  return shown
}

async function show(
  api: ApiClient,
  run: Row,
  outcome: string | undefined,
): Promise<Extract<Result, { readonly text: string }>> {
  const items = await api.all(path('sync-runs', String(run['id']), 'items'), { outcome })
  // What is as it should be is counted and not shown.
  const rows = items.filter(item => item['outcome'] !== 'up-to-date' && item['outcome'] !== null)
  const columns = ['repository', 'tag', 'target', 'outcome', 'bytes', 'reason']
  const list = rows.length === 0 ? '' : table(columns, rows)
  return { text: `${list}${summary(run)}\n`, json: { ...run, items } }
}

function summary(run: Row): string {
  const count = (key: string): string => cell(run, key)
  const counts = [
    ...(run['dryRun'] === true ? [`${count('toCopy')} to copy`] : [`${count('copied')} copied`]),
    `${count('upToDate')} up to date`,
    ...(run['skipped'] === 0 ? [] : [`${count('skipped')} skipped`]),
    ...(run['failed'] === 0 ? [] : [`${count('failed')} failed`]),
  ]
  const of = run['listed'] === true ? `of ${count('images')} images` : `of ${count('images')} images listed so far`
  const why = typeof run['error'] === 'string' ? `: ${run['error']}` : ''
  return `run ${count('id')} of ${count('sync')} is ${count('state')}${why}\n${of}: ${counts.join(', ')}; ${bytes(Number(run['bytes']))} moved`
}

function cell(row: Row, key: string): string {
  return String(row[key])
}
