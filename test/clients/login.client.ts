import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type AccessServer, PASSWORD, startAccessServer } from '../support/access.ts'
import { type Output, layoutDescriptor, makeLayout, removeScratch, run, scratch } from '../support/clients.ts'

const WRONG = 'not the password'

describe('clients that log in', () => {
  let server: AccessServer
  let work: string
  let layout: string
  let digest: string

  before(async () => {
    work = await scratch()
    layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello to those who may\n' }])
    digest = (await layoutDescriptor(layout)).digest
    server = await startAccessServer()
    const { administer } = server
    await administer('POST', '/users', { name: 'alice', password: PASSWORD })
    for (const pattern of ['team/**', 'public/**']) {
      await administer('POST', '/grants', {
        subject: { kind: 'principal', name: 'alice' },
        pattern,
        actions: ['push', 'delete'],
      })
    }
    await administer('POST', '/grants', { subject: { kind: 'anonymous' }, pattern: 'public/**', actions: ['pull'] })
    for (const repository of ['team/app', 'public/app']) {
      const target = `docker://${server.host}/${repository}:1`
      const as = ['--dest-creds', `alice:${PASSWORD}`, '--dest-tls-verify=false']
      await run('skopeo', ['copy', ...as, `oci:${layout}:latest`, target])
    }
  })

  after(async () => {
    await server?.stop()
    await removeScratch(work)
  })

  it('skopeo logs in, pushes, reads, deletes and logs out, and says when the password is wrong', async () => {
    const auth = ['--authfile', join(work, 'skopeo.json'), '--tls-verify=false']
    const login = (password: string): Promise<Output> =>
      run('skopeo', ['login', ...auth, '--username', 'alice', '--password', password, server.host])
    await assert.rejects(login(WRONG), /invalid username\/password|wrong name or password/)
    await login(PASSWORD)
    const target = `docker://${server.host}/team/skopeo:1`
    const copy = ['--authfile', join(work, 'skopeo.json'), '--dest-tls-verify=false']
    await run('skopeo', ['copy', ...copy, `oci:${layout}:latest`, target])
    const { stdout } = await run('skopeo', ['inspect', ...auth, '--format', '{{.Digest}}', target])
    assert.equal(stdout.trim(), digest)
    await run('skopeo', ['delete', ...auth, target])
    await run('skopeo', ['logout', ...auth.slice(0, 2), server.host])
    await assert.rejects(run('skopeo', ['inspect', ...auth, target]), /unauthorized|authentication required|log in/i)
  })

  it('without a login the public repository is read and the private one beside it is not', async () => {
    const config = join(work, 'nobody')
    await mkdir(config)
    const env = { DOCKER_CONFIG: config, REGISTRY_AUTH_FILE: join(config, 'none.json') }
    const inspect = (repository: string): Promise<Output> =>
      run('skopeo', ['inspect', '--tls-verify=false', `docker://${server.host}/${repository}:1`], { env })
    await inspect('public/app')
    await assert.rejects(inspect('team/app'), /unauthorized|authentication required|log in/i)
    await inspect('public/app')
  })
})
