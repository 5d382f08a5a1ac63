import type { Row } from '../api-client.ts'
import { type Verbs, done, need, path, reference, tagged, whole } from '../command.ts'
import { UsageError } from '../usage-error.ts'

/** `berth repository …` */
export const repositoryVerbs: Verbs = {
  list: {
    usage: '[--deleted]',
    about: 'repositories; with --deleted those that can be brought back',
    run: async (api, _args, { deleted }) =>
      deleted
        ? {
            rows: await api.all('/deleted-repositories'),
            columns: ['id', 'name', 'createdAt', 'deletedAt', 'deletedBy', 'keptUntil'],
          }
        : { rows: await api.all('/repositories'), columns: ['name', 'createdAt'] },
  },
  show: {
    usage: 'NAME',
    about: 'a repository with the number of its tags and manifests',
    run: async (api, [name]) => ({
      rows: [(await api.call('GET', path('repositories', need(name, 'NAME')))) as Row],
      columns: ['name', 'tags', 'manifests', 'createdAt'],
    }),
  },
  delete: {
    usage: 'NAME',
    about: 'delete a repository; berth undelete NAME brings it back',
    async run(api, [name]) {
      await api.call('DELETE', path('repositories', need(name, 'NAME')))
      return done(`repository ${name} was deleted; berth undelete ${name} brings it back`)
    },
  },
}

/** `berth manifest …` */
export const manifestVerbs: Verbs = {
  delete: {
    usage: 'MANIFEST [--force]',
    about: 'delete REPOSITORY@DIGEST with its tags; --force also where an index names it, which then misses it',
    async run(api, [manifest], { force }) {
      const { repository, reference: digest } = reference(need(manifest, 'MANIFEST'))
      if (digest?.includes(':') !== true) throw new UsageError(`${manifest}: write REPOSITORY@DIGEST`)
      await api.call('POST', '/manifest-deletions', { repository, reference: digest, force })
      return done(`${manifest} was deleted; berth undelete ${manifest} brings it back`)
    },
  },
}

/** `berth tag …` */
export const tagVerbs: Verbs = {
  history: {
    usage: 'TAG [--limit 100]',
    about: 'where REPOSITORY:TAG pointed, newest first',
    run: async (api, [tag], { limit }) => ({
      rows: await api.page('/tag-history', { ...tagged(need(tag, 'TAG')), limit }),
      columns: ['at', 'action', 'by', 'from', 'to'],
    }),
  },
  rollback: {
    usage: 'TAG [--to DIGEST] [--steps 1]',
    about: 'point REPOSITORY:TAG at what it pointed to before, or at a DIGEST of its history',
    async run(api, [tag], { to, steps }) {
      const target = {
        ...(to === undefined ? {} : { to }),
        ...(steps === undefined ? {} : { steps: whole(steps, '--steps') }),
      }
      const moved = (await api.call('POST', '/tag-rollbacks', { ...tagged(need(tag, 'TAG')), ...target })) as Row
      return done(`${tag} was moved from ${String(moved['from'])}\nto ${String(moved['to'])}`, moved)
    },
  },
  delete: {
    usage: 'TAG',
    about: 'delete REPOSITORY:TAG; what it points to stays for a time',
    async run(api, [tag]) {
      const { repository, tag: name } = tagged(need(tag, 'TAG'))
      await api.call('POST', '/manifest-deletions', { repository, reference: name })
      return done(`${tag} was deleted; berth undelete ${tag} brings it back`)
    },
  },
}

/** `berth undelete …` */
export const undeleteVerbs: Verbs = {
  '': {
    usage: 'WHAT [--force] [--id 17]',
    about:
      'bring REPOSITORY:TAG, REPOSITORY@DIGEST or a whole REPOSITORY back; --force moves a tag that is there again, --id tells deleted repositories of one name apart',
    async run(api, [what], { force, id }) {
      const { repository, reference: of } = reference(need(what, 'WHAT'))
      if (of === undefined) {
        if (force) throw new UsageError('--force goes with a tag')
        const which = id === undefined ? {} : { id: whole(id, '--id') }
        const made = await api.call('POST', '/repository-undeletions', { repository, ...which })
        return done(`repository ${repository} is back`, made)
      }
      if (id !== undefined) throw new UsageError('--id goes with a repository')
      const made = (await api.call('POST', '/undeletions', { repository, reference: of, force })) as Row
      return done(undeleted(what ?? '', made), made)
    },
  },
}

function undeleted(what: string, made: Row): string {
  const tags = made['tags'] as readonly string[]
  const manifests = made['manifests'] as readonly string[]
  return [
    `${what} is back: ${String(made['digest'])}`,
    ...tags.map(tag => `  tag ${tag}`),
    ...manifests.map(digest => `  manifest ${digest}`),
  ].join('\n')
}

/** `berth tag-rule …` */
export const tagRuleVerbs: Verbs = {
  add: {
    usage: 'PATTERN --tags GLOB [--immutable] [--protected] [--writer NAME …] [--may-expire] [--name NAME]',
    about:
      'keep tags of the repositories of PATTERN: --immutable from everybody, --protected from all but each --writer (a user, robot+NAME or group:NAME); a regular expression is written between slashes',
    async run(api, [pattern], options) {
      const { tags, immutable, writer = [], name } = options
      const rule = {
        pattern: need(pattern, 'PATTERN'),
        tags: need(tags, '--tags'),
        immutable,
        protected: options.protected || writer.length > 0,
        writers: writer,
        mayExpire: options['may-expire'],
        ...(name === undefined ? {} : { name }),
      }
      const made = (await api.call('POST', '/tag-rules', rule)) as Row
      return done(`tag rule ${String(made['name'])}: ${tags} in ${pattern}`, made)
    },
  },
  list: {
    usage: '',
    about: 'tag rules',
    run: async api => ({
      rows: await api.all('/tag-rules'),
      columns: ['name', 'pattern', 'tags', 'immutable', 'protected', 'writers', 'mayExpire', 'createdAt', 'createdBy'],
    }),
  },
  remove: {
    usage: 'NAME',
    about: 'remove a tag rule',
    async run(api, [name]) {
      await api.call('DELETE', path('tag-rules', need(name, 'NAME')))
      return done(`tag rule ${name} was removed`)
    },
  },
}
