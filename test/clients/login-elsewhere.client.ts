import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import bcrypt from 'bcrypt'
import { type AccessServer, PASSWORD, startAccessServer } from '../support/access.ts'
import {
  type Output,
  makeLayout,
  makeRootfs,
  makeTar,
  removeScratch,
  run,
  scratch,
  startDockerd,
  until,
} from '../support/clients.ts'
import { type TestIssuer, startIssuer } from '../support/issuer.ts'
import { fails } from '../support/login-scene.ts'

const AUDIENCE = 'registry.example'
/** What a job's token of GitHub says: docs.github.com, "OpenID Connect reference". */
const GITHUB = {
  sub: 'repo:octo-org/octo-repo:ref:refs/heads/main',
  aud: AUDIENCE,
  repository: 'octo-org/octo-repo',
  repository_id: '74',
  repository_owner: 'octo-org',
  repository_owner_id: '65',
  event_name: 'push',
  ref: 'refs/heads/main',
  sha: 'c0ffee',
  run_id: '123',
}
/** The `sub` of repositories made since 2026-07-15, which holds the ids as well. */
const NEW_SUB = 'repo:octo-org@65/octo-repo@74:ref:refs/heads/main'
/** What a job's token of GitLab says: docs.gitlab.com, "OpenID Connect (OIDC) ID tokens". */
const GITLAB = {
  sub: 'project_path:group/project:ref_type:branch:ref:main',
  aud: AUDIENCE,
  project_id: '22',
  project_path: 'group/project',
  namespace_id: '72',
  namespace_path: 'group',
  ref: 'main',
  ref_protected: 'true',
  pipeline_id: '574',
}
/** Jobs that are not the one that a rule means, and what of them it is told by. */
const STRANGERS: readonly (readonly [what: string, claims: object, reason: RegExp])[] = [
  [
    'a fork',
    { repository: 'mallory/octo-repo', repository_id: '99', repository_owner_id: '13' },
    /repository_id is "99"/,
  ],
  ['somebody who took over the owner’s name', { repository_owner_id: '66' }, /repository_owner_id is "66"/],
  ['a job with a token for another', { aud: 'other.example' }, /aud is "other\.example"/],
  ['a job on a stranger’s pull request', { event_name: 'pull_request_target' }, /event_name is "pull_request_target"/],
]

describe('clients that log in by what others vouch for', () => {
  let work: string
  let layout: string
  let github: TestIssuer
  let gitlab: TestIssuer
  let server: AccessServer
  /** Sends its clients to `server` for tokens. */
  let behind: AccessServer
  let engine: Awaited<ReturnType<typeof startDockerd>>

  before(async () => {
    work = await scratch()
    layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello from elsewhere\n' }])
    const htpasswd = join(work, 'htpasswd')
    await writeFile(htpasswd, `# htpasswd -B\nalice:${(await bcrypt.hash(PASSWORD, 5)).replace('$2b$', '$2y$')}\n`)
    github = await startIssuer()
    gitlab = await startIssuer()
    server = await startAccessServer({ BERTH_AUTH_HTPASSWD: htpasswd, BERTH_AUTH_ALLOW_PRIVATE_ISSUERS: 'true' })
    await grantTo('alice')
    const rule = { audience: AUDIENCE, grants: [{ pattern: 'ci/**', actions: ['push'] }] }
    await server.administer('POST', '/trust-rules', {
      ...rule,
      name: 'octo',
      issuer: github.url,
      claims: { repository_id: '74', repository_owner_id: '65', ref: 'refs/heads/main' },
    })
    await server.administer('POST', '/trust-rules', {
      ...rule,
      name: 'project',
      issuer: gitlab.url,
      claims: { project_id: 22, namespace_id: 72, ref_protected: true },
      singleUse: true,
    })
    behind = await startAccessServer({
      BERTH_AUTH_SERVICE: 'behind.example',
      BERTH_AUTH_REALM: `${server.url}/token`,
      BERTH_AUTH_ISSUERS: JSON.stringify([
        { issuer: 'berth', audience: 'berth', jwksUrl: `${server.url}/.well-known/jwks.json` },
      ]),
    })
    engine = await startDockerd(join(work, 'd'))
    await makeRootfs(join(work, 'rootfs'))
    await makeTar(join(work, 'rootfs'), join(work, 'rootfs.tar'))
    await engine.docker('import', join(work, 'rootfs.tar'), 'base:1')
  })
  after(async () => {
    await engine?.stop()
    await behind?.stop()
    await server?.stop()
    await Promise.all([github?.close(), gitlab?.close()])
    await removeScratch(work)
  })

  async function grantTo(name: string): Promise<void> {
    const grant = { subject: { kind: 'principal', name }, pattern: 'team/**', actions: ['push'] }
    await server.administer('POST', '/grants', grant)
  }

  /** Waits until the audit has a refused login with that reason: it is written a moment after the answer. */
  async function refusedBecause(reason: RegExp): Promise<void> {
    await until(`the audit says ${reason.source}`, async () => {
      const { items } = (await server.administer('GET', '/audit?kind=login')) as { items: { detail: object }[] }
      return items.some(({ detail }) => 'reason' in detail && reason.test(String(detail.reason)))
    })
  }

  const skopeo = async (...args: string[]): Promise<Output> => await run('skopeo', args)
  const skopeoLogin = async (host: string, password: string, name = 'ci'): Promise<Output> =>
    await skopeo('login', '--authfile', join(work, 'a.json'), '--tls-verify=false', '-u', name, '-p', password, host)
  const skopeoPush = async (host: string, repository: string): Promise<Output> => {
    const flags = ['--authfile', join(work, 'a.json'), '--dest-tls-verify=false']
    return await skopeo('copy', ...flags, `oci:${layout}:latest`, `docker://${host}/${repository}:1`)
  }
  const dockerLogin = async (host: string, password: string, name = 'ci'): Promise<Output> =>
    await engine.docker('login', '--username', name, '--password', password, host)
  const dockerPush = async (host: string, repository: string): Promise<Output> => {
    await engine.docker('tag', 'base:1', `${host}/${repository}:1`)
    return await engine.docker('push', `${host}/${repository}:1`)
  }

  describe('skopeo', () => {
    it('logs in with the identity token of a GitHub job, of the old form and the new, and pushes', async () => {
      for (const [repository, sub] of [
        ['ci/old', GITHUB.sub],
        ['ci/new', NEW_SUB],
      ] as const) {
        await skopeoLogin(server.host, github.sign({ ...GITHUB, sub, jti: randomUUID() }))
        await skopeoPush(server.host, repository)
      }
      await fails(skopeoPush(server.host, 'team/ci'), /ci\+octo may not push here|denied|unauthorized/)
    })

    it('logs in where the owner was renamed and its ids are the same', async () => {
      const renamed = { repository: 'other-name/octo-repo', repository_owner: 'other-name' }
      await skopeoLogin(server.host, github.sign({ ...GITHUB, ...renamed }))
    })

    for (const [what, claims, reason] of STRANGERS) {
      it(`does not log in as ${what}; the audit says why`, async () => {
        await fails(skopeoLogin(server.host, github.sign({ ...GITHUB, ...claims })), /invalid username\/password/)
        await refusedBecause(reason)
      })
    }

    it('cannot show the identity token of a GitLab job a second time where the rule allows one use', async () => {
      const token = gitlab.sign({ ...GITLAB, jti: randomUUID() })
      await skopeoLogin(server.host, token)
      await fails(skopeoLogin(server.host, token), /invalid username\/password/)
      await refusedBecause(/used before/)
    })

    it('logs in as a user of an htpasswd file and pushes', async () => {
      await fails(skopeoLogin(server.host, 'not the password', 'alice'), /invalid username\/password/)
      await skopeoLogin(server.host, PASSWORD, 'alice')
      await skopeoPush(server.host, 'team/htpasswd')
    })

    it('logs in at a token server that is not the registry’s own, and pushes with its tokens', async () => {
      await fails(skopeoLogin(behind.host, 'not the password', 'alice'), /invalid username\/password/)
      await skopeoLogin(behind.host, PASSWORD, 'alice')
      await skopeoPush(behind.host, 'team/behind')
      await fails(skopeoPush(behind.host, 'other/behind'), /alice may not push here|denied|unauthorized/)
    })
  })

  describe('the Docker engine', () => {
    it('logs in with the identity token of a GitHub job, of the old form and the new, and pushes', async () => {
      for (const [repository, sub] of [
        ['ci/docker-old', GITHUB.sub],
        ['ci/docker-new', NEW_SUB],
      ] as const) {
        await dockerLogin(server.host, github.sign({ ...GITHUB, sub, jti: randomUUID() }))
        await dockerPush(server.host, repository)
      }
      await fails(dockerPush(server.host, 'team/docker-ci'), /denied/)
    })

    for (const [what, claims, reason] of STRANGERS) {
      it(`does not log in as ${what}, and is told why`, async () => {
        await fails(dockerLogin(server.host, github.sign({ ...GITHUB, ...claims })), reason)
      })
    }

    it('logs in with an identity token of a GitLab job that is good for one use, and goes on pushing', async () => {
      const token = gitlab.sign({ ...GITLAB, jti: randomUUID() })
      await dockerLogin(server.host, token)
      await dockerPush(server.host, 'ci/docker-gitlab')
      await dockerPush(server.host, 'ci/docker-gitlab-too')
      await fails(dockerLogin(server.host, token), /used before/)
    })

    it('logs in as a user of an htpasswd file and pushes', async () => {
      await fails(dockerLogin(server.host, 'not the password', 'alice'), /unauthorized: wrong name or password/)
      await dockerLogin(server.host, PASSWORD, 'alice')
      await dockerPush(server.host, 'team/docker-htpasswd')
    })

    it('logs in at a token server that is not the registry’s own, and pushes with its tokens', async () => {
      await dockerLogin(behind.host, PASSWORD, 'alice')
      await dockerPush(behind.host, 'team/docker-behind')
      await fails(dockerPush(behind.host, 'other/docker-behind'), /denied/)
    })
  })
})
