import type { Row } from '../api-client.ts'
import { readSecret, readSecrets } from '../ask.ts'
import { PRINCIPAL_COLUMNS, type Verbs, done, need, path } from '../command.ts'

/** `berth user …` */
export const userVerbs: Verbs = {
  add: {
    usage: 'NAME [--generate]',
    about: 'add a user; the password is asked for, or made with --generate',
    async run(api, [name], { generate }) {
      const password = generate ? {} : { password: await readSecret(`password of ${need(name, 'NAME')}`, true) }
      const made = (await api.call('POST', '/users', { name: need(name, 'NAME'), ...password })) as Row
      const shown = made['generatedPassword']
      return done(
        typeof shown !== 'string'
          ? `user ${name} was added`
          : `user ${name} was added, with the password (shown this once)\n${shown}`,
        made,
      )
    },
  },
  list: {
    usage: '',
    about: 'users',
    run: async api => ({ rows: await api.all('/users'), columns: [...PRINCIPAL_COLUMNS, 'external'] }),
  },
  disable: {
    usage: 'NAME',
    about: 'refuse a user, and end its sessions',
    async run(api, [name]) {
      await api.call('PATCH', path('users', need(name, 'NAME')), { disabled: true })
      return done(`user ${name} is disabled`)
    },
  },
  enable: {
    usage: 'NAME',
    about: 'let a disabled user in again',
    async run(api, [name]) {
      await api.call('PATCH', path('users', need(name, 'NAME')), { disabled: false })
      return done(`user ${name} is enabled`)
    },
  },
  password: {
    usage: 'NAME [--current]',
    about:
      "set a password, and end the sessions of the former; one's own with --current, which asks for the current one",
    async run(api, [name], options) {
      const own = { what: `current password of ${need(name, 'NAME')}` }
      const asked = [...(options.current ? [own] : []), { what: `new password of ${name}`, isNew: true }]
      const [password, current] = (await readSecrets(asked)).toReversed()
      await api.call('PUT', path('users', need(name, 'NAME'), 'password'), { password, current })
      return done(`the password of ${name} was set`)
    },
  },
  delete: {
    usage: 'NAME',
    about: 'remove a user with its tokens and grants',
    async run(api, [name]) {
      await api.call('DELETE', path('users', need(name, 'NAME')))
      return done(`user ${name} was removed`)
    },
  },
}

/** `berth group …` */
export const groupVerbs: Verbs = {
  add: {
    usage: 'NAME',
    about: 'add a group',
    async run(api, [name]) {
      await api.call('POST', '/groups', { name: need(name, 'NAME') })
      return done(`group ${name} was added`)
    },
  },
  list: {
    usage: '',
    about: 'groups',
    run: async api => ({ rows: await api.all('/groups'), columns: ['name', 'createdAt'] }),
  },
  delete: {
    usage: 'NAME',
    about: 'remove a group with its grants',
    async run(api, [name]) {
      await api.call('DELETE', path('groups', need(name, 'NAME')))
      return done(`group ${name} was removed`)
    },
  },
  members: {
    usage: 'NAME',
    about: 'members of a group',
    run: async (api, [name]) => ({
      rows: await api.all(path('groups', need(name, 'NAME'), 'members')),
      columns: ['name', 'kind'],
    }),
  },
  join: {
    usage: 'NAME MEMBER',
    about: 'put a user or robot into a group',
    async run(api, [name, member]) {
      await api.call('PUT', path('groups', need(name, 'NAME'), 'members', need(member, 'MEMBER')))
      return done(`${member} is in group ${name}`)
    },
  },
  leave: {
    usage: 'NAME MEMBER',
    about: 'take a user or robot out of a group',
    async run(api, [name, member]) {
      await api.call('DELETE', path('groups', need(name, 'NAME'), 'members', need(member, 'MEMBER')))
      return done(`${member} is not in group ${name} any more`)
    },
  },
}
