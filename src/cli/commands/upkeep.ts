import { setTimeout as delay } from 'node:timers/promises'
import { type ApiClient, ApiRefusal, type Row } from '../api-client.ts'
import { done, type Options, type Result, type Verbs } from '../command.ts'
import { bytes } from '../output.ts'

const POLL_MS = 500
/** The kinds of things that a collection takes, in the order in which it does. */
const KINDS = ['upload', 'manifest', 'link', 'blob', 'bytes']
const DUE_COLUMNS = ['kind', 'repository', 'digest', 'size', 'since', 'reason']

interface Run {
  readonly run: number
  readonly state: string
  readonly failure: string | null
  readonly progress: Readonly<Record<string, number>>
}

interface Status {
  readonly run: Run
  readonly [more: string]: unknown
}

/** `berth gc …` */
export const gcVerbs: Verbs = {
  '': {
    usage: '[--dry-run] [--status]',
    about: 'collect now; --dry-run: show what would go and why; --status: how the last one and the queue stand',
    async run(api, _args, options) {
      if (options['dry-run']) return await listDue(api)
      const status = options.status
        ? await statusOf(api, '/collection')
        : await runNow(api, '/collection', options, sayCollection)
      return { text: `${sayCollection(status)}\n`, json: status }
    },
  },
}

/** `berth verify …` */
export const verifyVerbs: Verbs = {
  '': {
    usage: '[--status] [--damaged]',
    about: 'read all stored bytes again, in the background; --status: how that stands; --damaged: what was found',
    async run(api, _args, options) {
      if (options.damaged) {
        const rows = await api.all('/verification/damaged')
        return { rows, columns: ['digest', 'size', 'damagedAt', 'repository'] }
      }
      if (options.status) {
        const status = await statusOf(api, '/verification')
        return { text: `${sayVerification(status)}\n`, json: status }
      }
      const { run } = (await api.call('POST', '/verification/runs', {})) as { run: number }
      return done(`verification ${run} goes on in the background: berth verify --status`, { run })
    },
  },
}

async function listDue(api: ApiClient): Promise<Result> {
  const rows: Row[] = []
  for (const kind of KINDS) rows.push(...(await api.all('/collection/due', { kind })))
  return { rows, columns: DUE_COLUMNS }
}

async function statusOf(api: ApiClient, path: string): Promise<Status> {
  return (await api.call('GET', path)) as Status
}

/** Asks for a run and waits for its end; says on standard error how it goes. @throws ApiRefusal when it fails. */
async function runNow(
  api: ApiClient,
  path: string,
  options: Options,
  say: (status: Status) => string,
): Promise<Status> {
  const { run } = (await api.call('POST', `${path}/runs`, {})) as { run: number }
  let before = ''
  for (;;) {
    const status = await statusOf(api, path)
    if (status.run.failure !== null) throw new ApiRefusal(`${status.run.failure}; the server tries again in a minute`)
    if (status.run.run > run || (status.run.run === run && status.run.state === 'finished')) return status
    const text = say(status)
    if (!options.json && text !== before) process.stderr.write(`${text}\n`)
    before = text
    await delay(POLL_MS)
  }
}

function sayCollection(status: Status): string {
  const { run, state, progress } = status.run
  const count = (name: string): number => progress[name] ?? 0
  const queue = status['queue'] as Readonly<Record<string, number>>
  const left = (name: string): number => queue[name] ?? 0
  const head = run === 0 ? 'no collection was asked for yet' : `collection ${run}, ${state}`
  return (
    `${head}: ${count('manifests')} manifests, ${count('links')} links, ${count('blobs')} blobs and ` +
    `${count('uploads')} uploads collected, ${bytes(count('trashedBytes'))} to the trash; ` +
    `${count('purged')} keys deleted, ${bytes(count('freedBytes'))} freed; ` +
    `left: ${left('due')} to look at, ${bytes(left('purgeableBytes'))} to free now, ${bytes(left('trashBytes'))} in the trash`
  )
}

function sayVerification(status: Status): string {
  const { run, state, progress, failure } = status.run
  const count = (name: string): number => progress[name] ?? 0
  const head = run === 0 ? 'no verification yet' : `verification ${run}, ${state}`
  const trouble = failure === null ? '' : `; ${failure}`
  return (
    `${head}: ${count('blobs')} blobs and ${bytes(count('bytes'))} read, ${count('damaged')} damaged, ` +
    `${count('missing')} missing, ${count('recovered')} sound again; damaged now: ${String(status['damaged'])}${trouble}`
  )
}
