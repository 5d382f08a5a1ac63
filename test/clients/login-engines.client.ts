import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Output, makeRootfs, makeTar, startContainerd, startDockerd } from '../support/clients.ts'
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

/** A name that `hosts.toml` alone leads to the registry. */
const NAMED = 'registry.berth.test'

describe('engines that log in', () => {
  let scene: LoginScene
  let host: string

  before(async () => {
    scene = await setLoginScene()
    host = scene.server.host
  })
  after(() => scene?.close())

  describe('the Docker engine', () => {
    let engine: Awaited<ReturnType<typeof startDockerd>>
    const login = ({ name, password }: Login): Promise<Output> =>
      engine.docker('login', '--username', name, '--password', password, host)
    const push = async (repository: string): Promise<Output> => {
      await engine.docker('tag', 'base:1', `${host}/${repository}:1`)
      return await engine.docker('push', `${host}/${repository}:1`)
    }
    const pull = (repository: string): Promise<Output> => engine.docker('pull', `${host}/${repository}:1`)
    before(async () => {
      engine = await startDockerd(join(scene.work, 'd'))
      await makeRootfs(join(scene.work, 'rootfs'))
      await makeTar(join(scene.work, 'rootfs'), join(scene.work, 'rootfs.tar'))
      await engine.docker('import', join(scene.work, 'rootfs.tar'), 'base:1')
    })
    after(() => engine?.stop())

    it('pulls what is public without a login, beside what is not (project-zot/zot #2928)', async () => {
      await pull('public/app')
      await fails(pull('team/app'), /pull access denied/)
      await pull('public/app')
      await fails(push('team/docker'), DENIED)
    })

    it('says when the password is wrong or the robot has expired', async () => {
      await fails(login(ALICE_MISTYPED), /unauthorized: wrong name or password/)
      await fails(login(scene.expired), /unauthorized: robot\+expired has expired/)
    })

    it('logs in, pushes, mounts, pulls and logs out', async () => {
      await login(ALICE)
      await push('team/docker')
      assert.ok((await mountsDuring(scene.server, () => push('team/docker-too'))) > 0)
      await pull('team/app')
      await fails(push('other/docker'), /denied: alice may not push here/)
      await fails(pull('other/app'), /pull access denied/)
      await engine.docker('logout', host)
      await fails(pull('team/app'), /pull access denied/)
    })
  })

  describe('containerd', () => {
    let engine: Awaited<ReturnType<typeof startContainerd>>
    let hostsDir: string
    const images = (verb: 'pull' | 'push', repository: string, login?: Login): Promise<Output> => {
      const user = login === undefined ? [] : ['--user', `${login.name}:${login.password}`]
      const unpack = verb === 'pull' ? ['--snapshotter', 'native'] : []
      return engine.ctr('images', verb, '--hosts-dir', hostsDir, ...unpack, ...user, `${NAMED}/${repository}:1`)
    }
    const tag = (from: string, to: string): Promise<Output> =>
      engine.ctr('images', 'tag', '--force', `${NAMED}/${from}:1`, `${NAMED}/${to}:1`)
    before(async () => {
      engine = await startContainerd(join(scene.work, 'c'))
      hostsDir = join(scene.work, 'certs.d')
      await mkdir(join(hostsDir, NAMED), { recursive: true })
      const capabilities = 'capabilities = ["pull", "resolve", "push"]'
      const hosts = [`server = "${scene.server.url}"`, `[host."${scene.server.url}"]`, capabilities]
      await writeFile(join(hostsDir, NAMED, 'hosts.toml'), `${hosts.join('\n')}\n`)
    })
    after(() => engine?.stop())

    it('pulls what is public without a login, beside what is not', async () => {
      await images('pull', 'public/app')
      await fails(images('pull', 'team/app'), DENIED)
      await images('pull', 'public/app')
    })

    it('says when the password is wrong or the robot has expired', async () => {
      for (const wrong of [ALICE_MISTYPED, scene.expired]) {
        await fails(images('pull', 'team/app', wrong), /401 Unauthorized/)
      }
    })

    it('pulls, pushes and mounts by way of hosts.toml', async () => {
      await images('pull', 'team/app', ALICE)
      await tag('team/app', 'team/containerd')
      assert.ok((await mountsDuring(scene.server, () => images('push', 'team/containerd', ALICE))) > 0)
      await tag('team/app', 'other/containerd')
      await fails(images('push', 'other/containerd', ALICE), DENIED)
    })
  })
})
