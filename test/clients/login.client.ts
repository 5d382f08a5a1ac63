import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { CRANE, type Output, makeRootfs, makeTar, run } from '../support/clients.ts'
import {
  ALICE,
  ALICE_MISTYPED,
  DENIED,
  type Login,
  type LoginScene,
  fails,
  mountsDuring,
  setLoginScene,
} from '../support/login-scene.ts'
import { type Host, makeHost } from '../support/podman-host.ts'

describe('clients without an engine that log in', () => {
  let scene: LoginScene
  let host: string

  before(async () => {
    scene = await setLoginScene()
    host = scene.server.host
  })
  after(() => scene?.close())

  describe('skopeo', () => {
    let auth: string[]
    const skopeo = (...args: string[]): Promise<Output> => run('skopeo', args)
    const login = ({ name, password }: Login): Promise<Output> =>
      skopeo('login', ...auth, '--tls-verify=false', '--username', name, '--password', password, host)
    const copy = (source: string, target: string): Promise<Output> =>
      skopeo('copy', ...auth, '--src-tls-verify=false', '--dest-tls-verify=false', source, target)
    const inspect = (repository: string): Promise<Output> =>
      skopeo('inspect', ...auth, '--tls-verify=false', '--format', '{{.Digest}}', `docker://${host}/${repository}:1`)
    before(() => {
      auth = ['--authfile', join(scene.work, 'skopeo.json')]
    })

    it('logs in, pushes, mounts, reads, deletes and logs out', async () => {
      await login(ALICE)
      await copy(`oci:${scene.layout}:latest`, `docker://${host}/team/skopeo:1`)
      const mounts = await mountsDuring(scene.server, () =>
        copy(`docker://${host}/team/app:1`, `docker://${host}/team/copied:1`),
      )
      assert.ok(mounts > 0)
      assert.equal((await inspect('team/copied')).stdout.trim(), scene.digest)
      await skopeo('delete', ...auth, '--tls-verify=false', `docker://${host}/team/copied:1`)
      await fails(inspect('team/copied'), /manifest unknown/i)
      await fails(copy(`oci:${scene.layout}:latest`, `docker://${host}/other/app:2`), /alice may not pull here/)
      await fails(inspect('other/app'), /alice may not pull here/)
      await skopeo('logout', ...auth, host)
      await fails(inspect('team/app'), DENIED)
    })

    it('says when the password is wrong or the robot has expired', async () => {
      for (const wrong of [ALICE_MISTYPED, scene.expired]) await fails(login(wrong), /invalid username\/password/)
    })

    it('reads what is public without a login, beside what is not', async () => {
      await inspect('public/app')
      await fails(inspect('team/app'), DENIED)
      await inspect('public/app')
    })
  })

  describe('podman', () => {
    let machine: Host
    let auth: string[]
    const podman = (...args: string[]): Promise<Output> => machine.podman(...args)
    const login = ({ name, password }: Login): Promise<Output> =>
      podman('login', ...auth, '--username', name, '--password', password, host)
    const push = async (repository: string): Promise<Output> => {
      await podman('tag', 'base:1', `${host}/${repository}:1`)
      return await podman('push', ...auth, `${host}/${repository}:1`)
    }
    const pull = (repository: string): Promise<Output> => podman('pull', ...auth, `${host}/${repository}:1`)
    before(async () => {
      auth = ['--authfile', join(scene.work, 'podman.json')]
      machine = await makeHost(join(scene.work, 'podman'), host)
      await makeRootfs(join(scene.work, 'rootfs'))
      await makeTar(join(scene.work, 'rootfs'), join(scene.work, 'rootfs.tar'))
      await podman('import', join(scene.work, 'rootfs.tar'), 'base:1')
    })

    it('logs in, pushes, mounts, pulls and logs out', async () => {
      await login(ALICE)
      await push('team/podman')
      assert.ok((await mountsDuring(scene.server, () => push('team/podman-too'))) > 0)
      await pull('team/app')
      await fails(push('other/podman'), /alice may not pull here/)
      await podman('logout', ...auth, host)
      await fails(pull('team/app'), DENIED)
    })

    it('says when the password is wrong or the robot has expired', async () => {
      for (const wrong of [ALICE_MISTYPED, scene.expired]) await fails(login(wrong), /invalid username\/password/)
    })

    it('pulls what is public without a login, beside what is not', async () => {
      await pull('public/app')
      await fails(pull('team/app'), DENIED)
      await pull('public/app')
    })
  })

  describe('crane', () => {
    let config: string
    const crane = async (...args: string[]): Promise<string> =>
      (await run(CRANE, [...args, '--insecure'], { env: { DOCKER_CONFIG: config } })).stdout.trim()
    const login = ({ name, password }: Login): Promise<string> =>
      crane('auth', 'login', host, '--username', name, '--password', password)
    const digest = (repository: string): Promise<string> => crane('digest', `${host}/${repository}:1`)
    before(async () => {
      config = join(scene.work, 'crane')
      await mkdir(config)
    })

    it('logs in, pushes, mounts, pulls, lists, deletes and logs out', async () => {
      await login(ALICE)
      await crane('push', scene.layout, `${host}/team/crane:1`)
      const mounts = await mountsDuring(scene.server, () =>
        crane('copy', `${host}/team/crane:1`, `${host}/team/crane-too:1`),
      )
      assert.ok(mounts > 0)
      assert.equal(await digest('team/crane-too'), scene.digest)
      await crane('pull', `${host}/team/crane:1`, join(scene.work, 'crane.tar'))
      const catalog = (await crane('catalog', host)).split('\n')
      assert.ok(catalog.includes('team/crane') && !catalog.includes('other/app'))
      await crane('delete', `${host}/team/crane-too:1`)
      await fails(digest('team/crane-too'), /MANIFEST_UNKNOWN|404/)
      await fails(crane('push', scene.layout, `${host}/other/crane:1`), DENIED)
      await fails(digest('other/app'), /alice may not pull here/)
      await crane('auth', 'logout', host)
      await fails(digest('team/app'), /log in to pull here/)
    })

    it('says when the password is wrong or the robot has expired, at the first use: its login asks nobody', async () => {
      await login(ALICE_MISTYPED)
      await fails(digest('team/app'), /wrong name or password/)
      await login(scene.expired)
      await fails(digest('team/app'), /robot\+expired has expired/)
      await crane('auth', 'logout', host)
    })

    it('reads what is public without a login, beside what is not', async () => {
      assert.equal(await digest('public/app'), scene.digest)
      await fails(digest('team/app'), /log in to pull here/)
      assert.equal(await digest('public/app'), scene.digest)
    })
  })
})
