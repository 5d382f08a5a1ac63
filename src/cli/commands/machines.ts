import { readToken } from '../../auth/tokens.ts'
import type { Row } from '../api-client.ts'
import { readSecret } from '../ask.ts'
import {
  PRINCIPAL_COLUMNS,
  type Verbs,
  claim,
  done,
  expiry,
  need,
  overlap,
  path,
  patternActions,
  seconds,
  userOf,
} from '../command.ts'
import { table } from '../output.ts'
import { UsageError } from '../usage-error.ts'

/** `berth robot …` */
export const robotVerbs: Verbs = {
  create: {
    usage: 'NAME --grant ACTIONS:PATTERN … [--expires 90d]',
    about: 'make a robot account; its secret is shown this once',
    async run(api, [name], options) {
      const grants = (options.grant ?? []).map(patternActions)
      const robot = { name: need(name, 'NAME'), grants, ...expiry(options) }
      const made = (await api.call('POST', '/robots', robot)) as Row
      return done(
        `${String(made['name'])} was made, with the secret (shown this once)\n${String(made['secret'])}`,
        made,
      )
    },
  },
  list: {
    usage: '',
    about: 'robots',
    run: async api => ({ rows: await api.all('/robots'), columns: PRINCIPAL_COLUMNS }),
  },
  rotate: {
    usage: 'NAME [--overlap 1h]',
    about: 'give a robot a new secret; the former stays good for the overlap, and one before that ends at once',
    async run(api, [name], options) {
      const made = (await api.call('POST', path('robots', need(name, 'NAME'), 'secrets'), overlap(options))) as Row
      return done(`the new secret of ${String(made['name'])} (shown this once)\n${String(made['secret'])}`, made)
    },
  },
  expire: {
    usage: 'NAME --expires 90d',
    about: 'set when a robot ends',
    async run(api, [name], options) {
      need(options.expires, '--expires')
      await api.call('PATCH', path('robots', need(name, 'NAME')), expiry(options))
      return done(`robot ${name} ends in ${options.expires}`)
    },
  },
  disable: {
    usage: 'NAME',
    about: 'refuse a robot, and end its sessions',
    async run(api, [name]) {
      await api.call('PATCH', path('robots', need(name, 'NAME')), { disabled: true })
      return done(`robot ${name} is disabled`)
    },
  },
  enable: {
    usage: 'NAME',
    about: 'let a disabled robot in again',
    async run(api, [name]) {
      await api.call('PATCH', path('robots', need(name, 'NAME')), { disabled: false })
      return done(`robot ${name} is enabled`)
    },
  },
  delete: {
    usage: 'NAME',
    about: 'remove a robot',
    async run(api, [name]) {
      await api.call('DELETE', path('robots', need(name, 'NAME')))
      return done(`robot ${name} was removed`)
    },
  },
}

/** `berth token …` */
export const tokenVerbs: Verbs = {
  create: {
    usage: 'NAME [--user NAME] [--scope ACTIONS:PATTERN …] [--expires 90d]',
    about: 'make a personal access token; it is shown this once',
    async run(api, [name], options) {
      const scopes = options.scope === undefined ? {} : { scopes: options.scope.map(patternActions) }
      const token = { name: need(name, 'NAME'), ...userOf(options), ...scopes, ...expiry(options) }
      const made = (await api.call('POST', '/tokens', token)) as Row
      return done(`token ${name} (shown this once)\n${String(made['secret'])}`, made)
    },
  },
  list: {
    usage: '[--user NAME]',
    about: 'personal access tokens',
    run: async (api, _args, { user }) => ({
      rows: await api.all('/tokens', { user }),
      columns: ['name', 'scopes', 'expiresAt', 'lastUsedAt', 'createdAt', 'secrets'],
    }),
  },
  rotate: {
    usage: 'NAME [--user NAME] [--overlap 1h]',
    about: 'give a token a new secret; the former stays good for the overlap, and one before that ends at once',
    async run(api, [name], options) {
      const body = { ...userOf(options), ...overlap(options) }
      const made = (await api.call('POST', path('tokens', need(name, 'NAME'), 'secrets'), body)) as Row
      return done(`token ${name} (shown this once)\n${String(made['secret'])}`, made)
    },
  },
  delete: {
    usage: 'NAME [--user NAME]',
    about: 'remove a token',
    async run(api, [name], options) {
      const query = options.user === undefined ? '' : `?user=${encodeURIComponent(options.user)}`
      await api.call('DELETE', `${path('tokens', need(name, 'NAME'))}${query}`)
      return done(`token ${name} was removed`)
    },
  },
}

/** `berth trust …` */
export const trustVerbs: Verbs = {
  add: {
    usage:
      'NAME --issuer URL --audience TEXT --claim NAME=VALUE … --grant ACTIONS:PATTERN … [--session 1h] [--single-use] [--allow-pull-request-target]',
    about: 'trust identity tokens of a CI system (docs/ci.md)',
    async run(api, [name], options) {
      const session = options.session === undefined ? {} : { sessionSeconds: seconds(options.session) }
      await api.call('POST', '/trust-rules', {
        name: need(name, 'NAME'),
        issuer: need(options.issuer, '--issuer'),
        audience: need(options.audience, '--audience'),
        claims: Object.fromEntries((options.claim ?? []).map(claim)),
        grants: (options.grant ?? []).map(patternActions),
        singleUse: options['single-use'],
        allowPullRequestTarget: options['allow-pull-request-target'],
        ...session,
      })
      return done(`trust rule ${name} was added; its identities are ci+${name}`)
    },
  },
  list: {
    usage: '',
    about: 'trust rules',
    run: async api => ({
      rows: await api.all('/trust-rules'),
      columns: ['name', 'issuer', 'audience', 'claims', 'singleUse', 'sessionSeconds'],
    }),
  },
  test: {
    usage: '[--user NAME]',
    about:
      'what the rules of its issuer make of an identity token, claim by claim, and which one a login (as NAME) goes by; reads the token, and shows it nobody',
    async run(api, _args, { user }) {
      const claims = readToken(await readSecret('identity token'))?.claims
      if (claims === undefined) throw new UsageError('that is no identity token', '')
      const { items } = (await api.call(
        'POST',
        '/trust-tests',
        user === undefined ? { claims } : { claims, user },
      )) as { items: readonly Explained[] }
      return { text: explained(items, claims['iss']), json: items }
    },
  },
  remove: {
    usage: 'NAME',
    about: 'remove a trust rule, and end its sessions',
    async run(api, [name]) {
      await api.call('DELETE', path('trust-rules', need(name, 'NAME')))
      return done(`trust rule ${name} was removed`)
    },
  },
}

interface Explained {
  readonly rule: string
  readonly matches: boolean
  readonly chosen: boolean
  readonly reason: string
  readonly checks: readonly Row[]
}

function explained(items: readonly Explained[], issuer: unknown): string {
  if (items.length === 0) return `no trust rule names the issuer ${JSON.stringify(issuer)}\n`
  return items
    .map(({ rule, matches, chosen, reason, checks }) => {
      const fit = matches ? 'fits, if the issuer signed the token and it is in time' : 'does not fit'
      const verdict = `${fit}; it is ${chosen ? '' : 'not '}taken: ${reason}`
      return `${rule} ${matches || chosen ? verdict : fit}\n${table(['claim', 'expected', 'actual', 'matches'], checks)}`
    })
    .join('\n')
}
