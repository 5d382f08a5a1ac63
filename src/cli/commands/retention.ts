import { setTimeout as delay } from 'node:timers/promises'
import { type KeepRule, RULE_SYNTAX, describeRule, parseRule } from '../../retention/rules.ts'
import { type ApiClient, ApiRefusal, type Row } from '../api-client.ts'
import { type Options, type Result, type Verbs, done, need, path } from '../command.ts'
import { table } from '../output.ts'
import { UsageError } from '../usage-error.ts'

const POLL_MS = 300

/** `berth retention …` */
export const retentionVerbs: Verbs = {
  set: {
    usage:
      'NAME --repositories PATTERN --keep RULE … [--tag PATTERN …] [--untagged] [--max-share 30] [--schedule CRON] [--time-zone NAME]',
    about: `add or change a policy: of the tags it is about, what no RULE keeps goes; RULE is ${RULE_SYNTAX}`,
    async run(api, [name], options) {
      const put = (await api.call('PUT', path('retention-policies', need(name, 'NAME')), {
        pattern: need(options.repositories, '--repositories'),
        rules: (options.keep ?? []).map(ruleOf),
        untagged: options.untagged,
        ...(options.tag === undefined ? {} : { tags: options.tag }),
        ...(options['max-share'] === undefined ? {} : { maxShare: percent(options['max-share']) }),
        ...(options.schedule === undefined ? {} : { schedule: options.schedule }),
        ...(options['time-zone'] === undefined ? {} : { timeZone: options['time-zone'] }),
      })) as Row
      const { nextRunAt } = put
      const next = typeof nextRunAt === 'string' ? `; it runs next at ${nextRunAt}` : ''
      return done(`retention policy ${name} is set${next}\nsee what it would remove: berth retention plan ${name}`, put)
    },
  },
  list: {
    usage: '',
    about: 'retention policies',
    run: async api => {
      const policies = (await api.all('/retention-policies')).map(policy => ({
        ...policy,
        repositories: policy['pattern'],
        keep: (policy['rules'] as readonly KeepRule[]).map(describeRule).join('; '),
      }))
      const columns = [
        'name',
        'repositories',
        'tags',
        'keep',
        'untagged',
        'maxShare',
        'schedule',
        'timeZone',
        'nextRunAt',
      ]
      return { rows: policies, columns }
    },
  },
  remove: {
    usage: 'NAME',
    about: 'remove a policy; what its runs did stays to be seen',
    async run(api, [name]) {
      await api.call('DELETE', path('retention-policies', need(name, 'NAME')))
      return done(`retention policy ${name} was removed`)
    },
  },
  plan: {
    usage: 'NAME [--all]',
    about: 'what a policy would remove, tag by tag with the reason; with --all also what stays, and by which rule',
    run: async (api, [name], { all }) => await end(api, await start(api, name, { goal: 'plan' }), all),
  },
  run: {
    usage: 'NAME [--yes]',
    about: 'remove what a policy says goes; where that is more than its share, it asks first, unless --yes is said',
    run: async (api, [name], { yes }) => await end(api, await start(api, name, { goal: 'run', confirmed: yes }), false),
  },
  confirm: {
    usage: 'RUN',
    about: 'carry out a plan, or what a run held back',
    async run(api, [run]) {
      await api.call('POST', path('retention-runs', need(run, 'RUN'), 'confirmation'))
      return await end(api, need(run, 'RUN'), false)
    },
  },
  runs: {
    usage: '[--policy NAME]',
    about: 'plans and runs, newest first',
    run: async (api, _args, { policy }) => ({
      rows: await api.page('/retention-runs', { policy }),
      columns: [
        'id',
        'policy',
        'goal',
        'state',
        'tags',
        'going',
        'untagged',
        'removed',
        'spared',
        'askedBy',
        'createdAt',
        'error',
      ],
    }),
  },
  show: {
    usage: 'RUN [--all]',
    about: 'a plan or run, tag by tag; with --all also what stays by a plan',
    run: async (api, [run], { all }) => await show(api, await read(api, need(run, 'RUN')), all),
  },
}

/** `berth pulls …` */
export const pullsVerbs: Verbs = {
  '': {
    usage: 'REPOSITORY',
    about: 'how often the tags of a repository were pulled, and when last',
    run: async (api, [repository]) => ({
      rows: await api.all('/pulls', { repository: need(repository, 'REPOSITORY') }),
      columns: ['tag', 'pulls', 'lastPulledAt'],
    }),
  },
}

function ruleOf(text: string): KeepRule {
  const rule = parseRule(text)
  if (rule === undefined) throw new UsageError(`--keep ${text}: write ${RULE_SYNTAX}`)
  return rule
}

function percent(text: string): number {
  if (!/^\d{1,3}%?$/.test(text)) throw new UsageError(`--max-share ${text}: write a number from 0 to 100`)
  return Number.parseInt(text, 10)
}

async function start(api: ApiClient, name: string | undefined, ask: object): Promise<string> {
  const { id } = (await api.call('POST', path('retention-policies', need(name, 'NAME'), 'runs'), ask)) as Row
  return String(id)
}

async function read(api: ApiClient, id: string): Promise<Row> {
  return (await api.call('GET', path('retention-runs', id))) as Row
}

/** Waits until a run has come to its end or asks, and shows it. @throws ApiRefusal where it failed. */
async function end(api: ApiClient, id: string, all: Options['all']): Promise<Result> {
  let run = await read(api, id)
  while (run['state'] === 'waiting') {
    await delay(POLL_MS)
    run = await read(api, id)
  }
  if (run['state'] === 'failed') throw new ApiRefusal(`run ${id} failed: ${String(run['error'])}`)
  return await show(api, run, all)
}

async function show(api: ApiClient, run: Row, all: Options['all']): Promise<Result> {
  const id = String(run['id'])
  const items = await api.all(path('retention-runs', id, 'items'), { all: String(all) })
  const repositories = await api.all(path('retention-runs', id, 'repositories'))
  return { text: describe(run, items, repositories), json: { ...run, items } }
}

function describe(run: Row, items: readonly Row[], repositories: readonly Row[]): string {
  const rows = items.map(item => ({ ...item, verdict: verdictOf(item) }))
  const list = items.length === 0 ? '' : `${table(['repository', 'name', 'verdict', 'rule', 'reason'], rows)}\n`
  const count = (key: string): string => String(run[key])
  const untagged = run['untagged'] === 0 ? '' : `, ${count('untagged')} manifests without a tag`
  const plan = `run ${count('id')} of ${count('policy')}: ${count('going')} of ${count('tags')} tags go${untagged}`
  const spared = run['spared'] === 0 ? '' : `, ${count('spared')} spared`
  return `${list}${plan}; ${count('removed')} removed${spared}\n${endOf(run, repositories)}`
}

function verdictOf({ goes, outcome }: Row): string {
  if (goes !== true) return 'stays'
  return typeof outcome === 'string' ? outcome : 'goes'
}

function endOf(run: Row, repositories: readonly Row[]): string {
  if (run['state'] === 'failed') return `it failed: ${String(run['error'])}\n`
  if (run['state'] === 'waiting') return 'it is not at its end\n'
  if (run['state'] !== 'asks') return ''
  const held = repositories.filter(repository => repository['held'] === true)
  const much = run['goal'] === 'plan' ? '' : held.map(describeHeld).join('')
  return `${much}nothing of this is removed before you confirm it: berth retention confirm ${String(run['id'])}\n`
}

function describeHeld({ repository, going, tags }: Row): string {
  return `${String(repository)} would lose ${String(going)} of ${String(tags)} tags, more than the policy's share\n`
}
