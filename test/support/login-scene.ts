import assert from 'node:assert/strict'
import { type AccessServer, PASSWORD, startAccessServer } from './access.ts'
import { layoutDescriptor, makeLayout, removeScratch, requestsDuring, run, scratch } from './clients.ts'

/** A name and what proves it, as a client is told them. */
export interface Login {
  readonly name: string
  readonly password: string
}

/** May pull, push and delete in `team/**` and `public/**`, and nothing in `other/**`. */
export const ALICE: Login = { name: 'alice', password: PASSWORD }
export const ALICE_MISTYPED: Login = { name: 'alice', password: 'not the password' }

/** What clients tell a person who shows what is wrong, and one who may not. */
export const DENIED = /denied|unauthorized|401|authorization failed|log in/i

/** A registry with an image in `team/app`, `public/app` (which everybody may pull) and `other/app`, under the tag 1. */
export interface LoginScene {
  readonly server: AccessServer
  readonly work: string
  /** An OCI layout with the image, and its digest. */
  readonly layout: string
  readonly digest: string
  /** A robot whose time is over. */
  readonly expired: Login
  close(): Promise<void>
}

/** Sets it up. */
export async function setLoginScene(): Promise<LoginScene> {
  const work = await scratch()
  const layout = await makeLayout(work, 'image', [{ path: '/hello', content: 'hello to those who may\n' }])
  const { digest } = await layoutDescriptor(layout)
  const server = await startAccessServer()
  const { administer } = server
  await administer('POST', '/users', { name: ALICE.name, password: ALICE.password })
  for (const pattern of ['team/**', 'public/**']) {
    const subject = { kind: 'principal', name: ALICE.name }
    await administer('POST', '/grants', { subject, pattern, actions: ['push', 'delete'] })
  }
  await administer('POST', '/grants', { subject: { kind: 'anonymous' }, pattern: 'public/**', actions: ['pull'] })
  const { name, secret } = await administer('POST', '/robots', {
    name: 'expired',
    grants: [{ pattern: 'team/**', actions: ['pull'] }],
    expiresAt: new Date(Date.now() - 1_000).toISOString(),
  })
  for (const repository of ['team/app', 'public/app', 'other/app']) {
    const as = ['--dest-creds', `admin:${PASSWORD}`, '--dest-tls-verify=false']
    await run('skopeo', ['copy', ...as, `oci:${layout}:latest`, `docker://${server.host}/${repository}:1`])
  }
  return {
    server,
    work,
    layout,
    digest,
    expired: { name: String(name), password: String(secret) },
    async close() {
      await server.stop()
      await removeScratch(work)
    },
  }
}

/** How many blobs `action` mounted, by the access log: only a mount opens no session and sends no bytes. */
export async function mountsDuring(server: AccessServer, action: () => Promise<unknown>): Promise<number> {
  const requests = await requestsDuring(server, action)
  return requests.filter(({ method, path, status, received }) => {
    const isStart = method === 'POST' && String(path).endsWith('/blobs/uploads/')
    return isStart && status === 201 && received === 0
  }).length
}

/** @throws where `action` does not fail with every one of these in what the client says. */
export async function fails(action: Promise<unknown>, ...says: readonly RegExp[]): Promise<void> {
  await assert.rejects(action, (error: Error) => {
    for (const pattern of says) assert.match(error.message, pattern)
    return true
  })
}
