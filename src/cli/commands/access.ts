import type { Row } from '../api-client.ts'
import { done, type Verbs, need, path, subject } from '../command.ts'

/** `berth grant …` */
export const grantVerbs: Verbs = {
  add: {
    usage: 'SUBJECT ACTIONS PATTERN',
    about: 'grant; SUBJECT is a user, robot+NAME, ci+NAME, group:NAME, everyone-logged-in or everyone',
    async run(api, [who, actions, pattern]) {
      const grant = {
        subject: subject(need(who, 'SUBJECT')),
        actions: need(actions, 'ACTIONS').split(','),
        pattern: need(pattern, 'PATTERN'),
      }
      const made = (await api.call('POST', '/grants', grant)) as Row
      return done(`grant ${String(made['id'])}: ${who} may ${actions} on ${pattern}`, made)
    },
  },
  list: {
    usage: '[--user NAME] [--group NAME]',
    about: 'grants',
    run: async (api, _args, { user, group }) => ({
      rows: await api.all('/grants', { principal: user, group }),
      columns: ['id', 'subject', 'actions', 'pattern', 'createdAt', 'createdBy'],
    }),
  },
  remove: {
    usage: 'ID',
    about: 'take a grant back',
    async run(api, [id]) {
      await api.call('DELETE', path('grants', need(id, 'ID')))
      return done(`grant ${id} was taken back`)
    },
  },
}

/** `berth key …` */
export const keyVerbs: Verbs = {
  list: {
    usage: '',
    about: 'keys that sign tokens',
    run: async api => ({ rows: await api.all('/keys'), columns: ['kid', 'state', 'signsFrom', 'retiresAt'] }),
  },
  rotate: {
    usage: '[--distrust]',
    about: 'rotate them now; --distrust ends every token that was signed until now',
    async run(api, _args, { distrust }) {
      await api.call('POST', '/keys/rotation', { distrust })
      return done(
        distrust ? 'rotated; tokens signed until now are refused' : 'rotated; tokens signed until now stay good',
      )
    },
  },
}

/** `berth audit …` */
export const auditVerbs: Verbs = {
  list: {
    usage: '[--actor NAME] [--kind KIND] [--limit 100]',
    about: 'what was done and refused, newest first',
    run: async (api, _args, { actor, kind, limit }) => ({
      rows: await api.page('/audit', { actor, kind, limit }),
      columns: ['at', 'kind', 'outcome', 'actor', 'client', 'detail'],
    }),
  },
}

/** `berth explain …` */
export const explainVerbs: Verbs = {
  '': {
    usage: 'WHO ACTION REPOSITORY',
    about: 'whether WHO (as in a grant, or anonymous) may do ACTION, and which grant decides',
    async run(api, [who, action, repository]) {
      const query = new URLSearchParams({
        ...asked(need(who, 'WHO')),
        action: need(action, 'ACTION'),
        repository: need(repository, 'REPOSITORY'),
      })
      const decision = (await api.call('GET', `/explain?${query.toString()}`)) as Row
      const verdict = decision['allowed'] === true ? 'yes' : 'no'
      return done(`${verdict}: ${String(decision['reason'])}`, decision)
    },
  },
}

/** About whom `explain` asks, as people write it. */
function asked(who: string): Record<string, string> {
  const { kind, name } = who === 'anonymous' ? subject('everyone') : subject(who)
  return kind === 'principal' || kind === 'group' ? { [kind]: name ?? '' } : { everyone: kind }
}
