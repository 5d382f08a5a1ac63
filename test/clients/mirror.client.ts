import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { PASSWORD, basic, fetchToken, startAccessServer } from '../support/access.ts'
import { OCI_INDEX, OCI_MANIFEST, RegistryClient, digestOf, imageOf, indexOf } from '../support/client.ts'
import {
  CRANE,
  layoutDescriptor,
  makeLayout,
  makeMultiArchLayout,
  removeScratch,
  run,
  scratch,
} from '../support/clients.ts'
import { startDistribution } from '../support/distribution.ts'
import { type MirrorAddress, NOWHERE, PULLS } from '../support/mirror-clients.ts'
import { type TestServer, startServer } from '../support/server.ts'
import { type UpstreamProxy, startUpstreamProxy } from '../support/upstream-proxy.ts'

/** A registry to mirror, as its clients know it. */
interface Origin {
  readonly host: string
  readonly username: string
  readonly password: string
  /** The Authorization of requests to a repository. */
  authorize(name: string): Promise<string>
  stop(): Promise<void>
}

const ORIGINS: Readonly<Record<string, (dir: string) => Promise<Origin>>> = {
  'Distribution with Basic logins': async dir => {
    const origin = await startDistribution(dir)
    return { ...origin, authorize: async () => basic(origin.username, origin.password) }
  },
  'Berth with tokens': async () => {
    const origin = await startAccessServer()
    const login = basic('admin', PASSWORD)
    return {
      host: origin.host,
      username: 'admin',
      password: PASSWORD,
      authorize: async name => `Bearer ${await fetchToken(origin.url, [`repository:${name}:pull,push`], login)}`,
      stop: () => origin.stop(),
    }
  },
}

let work: string
const layouts = new Map<string, { readonly layout: string; readonly digest: string }>()

before(async () => {
  work = await scratch()
  // Bytes of its own for each client, so that none finds what another has brought.
  for (const name of [...Object.keys(PULLS), 'schema2', 'multi', 'sparse']) {
    const layout = await makeLayout(work, name, [{ path: '/hello', content: `hello ${name}\n` }])
    if (name === 'multi' || name === 'sparse') await makeMultiArchLayout(layout)
    layouts.set(name, { layout, digest: (await layoutDescriptor(layout)).digest })
  }
})
after(() => removeScratch(work))

for (const [kind, startOrigin] of Object.entries(ORIGINS)) {
  describe(`clients that pull through a mirror of ${kind}`, () => {
    const subject = digestOf(JSON.stringify(imageOf({ annotations: { is: 'subject' } })))
    let home: string
    let places = 0
    let origin: Origin
    let proxy: UpstreamProxy
    let server: TestServer
    let mirror: MirrorAddress
    let client: RegistryClient

    before(async () => {
      home = await scratch()
      origin = await startOrigin(join(home, 'origin'))
      proxy = await startUpstreamProxy(`http://${origin.host}`)
      for (const [name, { layout }] of layouts) {
        await publish(layout, name, ...(name === 'schema2' ? ['--format', 'v2s2'] : ['--all']))
      }
      await publishReferrer()
      const { username, password } = origin
      const hub = { url: proxy.url, username, password, allowPrivate: true, tagTtl: '0s', namespaces: [NOWHERE] }
      server = await startServer({
        env: { BERTH_MIRROR_UPSTREAMS: JSON.stringify({ hub: { ...hub, hosts: ['127.0.0.1'] } }) },
      })
      mirror = { url: server.url, byPrefix: `localhost:${new URL(server.url).port}/hub` }
      client = new RegistryClient(`http://localhost:${new URL(server.url).port}`)
    })
    after(async () => {
      await server?.stop()
      await proxy?.close()
      await origin?.stop()
      await removeScratch(home)
    })

    /** Nobody has anything there yet. */
    const place = (): string => join(home, String((places += 1)))

    async function publish(layout: string, image: string, ...more: string[]): Promise<void> {
      const credentials = `${origin.username}:${origin.password}`
      const target = `docker://${origin.host}/library/${image}:1`
      const options = ['--dest-tls-verify=false', '--dest-creds', credentials]
      await run('skopeo', ['copy', ...more, ...options, `oci:${layout}:latest`, target])
    }

    /** An image, and what refers to it, by the tag that stands for the list where there is no API. */
    async function publishReferrer(): Promise<void> {
      const name = 'library/referrers'
      const headers = { Authorization: await origin.authorize(name) }
      const put = async (reference: string, body: object, type = OCI_MANIFEST): Promise<string> => {
        const answer = await fetch(`http://${origin.host}/v2/${name}/manifests/${reference}`, {
          method: 'PUT',
          headers: { ...headers, 'Content-Type': type },
          body: JSON.stringify(body),
        })
        assert.equal(answer.status, 201, await answer.text())
        return digestOf(JSON.stringify(body))
      }
      const started = await fetch(`http://${origin.host}/v2/${name}/blobs/uploads/`, { method: 'POST', headers })
      const location = new URL(started.headers.get('location') ?? '', `http://${origin.host}`)
      location.searchParams.set('digest', digestOf('{}'))
      const closed = await fetch(location, {
        method: 'PUT',
        headers: { ...headers, 'Content-Type': 'application/octet-stream' },
        body: '{}',
      })
      assert.equal(closed.status, 201, await closed.text())
      await put('1', imageOf({ annotations: { is: 'subject' } }))
      const descriptor = { mediaType: OCI_MANIFEST, digest: subject, size: 1 }
      const body = imageOf({ subject: descriptor, artifactType: 'application/signature' })
      const referrer = await put(digestOf(JSON.stringify(body)), body)
      await put(subject.replace(':', '-'), indexOf([referrer]), OCI_INDEX)
    }

    /** What a client has of an image, once the mirror need not ask for anything but whether the tag moved. */
    async function settled(pull: () => Promise<string>): Promise<string> {
      for (let turn = 0; turn < 100; turn += 1) {
        proxy.seen.splice(0)
        const digest = await pull()
        const fetched = proxy.seen.filter(
          ({ method, path }) => method === 'GET' && /\/(?:blobs|manifests)\//.test(path),
        )
        if (fetched.length === 0) return digest
      }
      return assert.fail('the upstream is asked for the same again and again')
    }

    const copyMulti = async (): Promise<string> => {
      const target = place()
      const source = `docker://${mirror.byPrefix}/library/multi:1`
      await run('skopeo', ['copy', '--all', '--src-tls-verify=false', source, `dir:${target}`])
      return digestOf(await readFile(join(target, 'manifest.json')))
    }
    const raw = async (image: string): Promise<string> =>
      (
        await run('skopeo', [
          'inspect',
          '--raw',
          '--tls-verify=false',
          `docker://${mirror.byPrefix}/library/${image}:1`,
        ])
      ).stdout
    const copyArch = (arch: string): Promise<unknown> =>
      run('skopeo', [
        'copy',
        '--override-arch',
        arch,
        '--src-tls-verify=false',
        `docker://${mirror.byPrefix}/library/sparse:1`,
        `dir:${place()}`,
      ])
    const referrers = async (): Promise<{ digests: string[]; warning: string | null }> => {
      const answer = await client.ask(`/v2/hub/library/referrers/referrers/${subject}`)
      assert.equal(answer.status, 200)
      const { manifests } = (await answer.json()) as { manifests: { digest: string }[] }
      return { digests: manifests.map(({ digest }) => digest), warning: answer.headers.get('warning') }
    }
    const digestIn = (name: string): string | undefined => layouts.get(name)?.digest

    for (const [name, pull] of Object.entries(PULLS)) {
      it(`${name} pulls what is not here yet, then what is, with the upstream's digest`, async () => {
        assert.equal(await pull(mirror, name, place()), digestIn(name))
        assert.equal(await settled(() => pull(mirror, name, place())), digestIn(name))
      })
    }

    it('an image for several platforms is copied whole, with the digest of its index', async () => {
      assert.equal(await copyMulti(), digestIn('multi'))
      assert.equal(await settled(copyMulti), digestIn('multi'))
    })

    it('of an image for several platforms one is copied', async () => {
      await settled(async () => String(await copyArch('amd64')))
      assert.equal(digestOf(await raw('sparse')), digestIn('sparse'))
    })

    it('Docker schema 2 stays what it is', async () => {
      const text = await raw('schema2')
      assert.match(text, /application\/vnd\.docker\.distribution\.manifest\.v2\+json/)
      await run(CRANE, ['validate', '--insecure', '--remote', `${mirror.byPrefix}/library/schema2:1`])
    })

    it('referrers are listed and pulled', async () => {
      const { digests, warning } = await referrers()
      assert.deepEqual([digests.length, warning], [1, null])
      const { stdout } = await run(CRANE, [
        'manifest',
        '--insecure',
        `${mirror.byPrefix}/library/referrers@${digests[0]}`,
      ])
      assert.match(stdout, /application\/signature/)
    })

    describe('with the upstream stopped', () => {
      before(() => origin.stop())

      for (const [name, pull] of Object.entries(PULLS)) {
        it(`${name} pulls what is here`, async () => {
          assert.equal(await pull(mirror, name, place()), digestIn(name))
        })
      }

      it('an image for several platforms is copied whole', async () => {
        assert.equal(await copyMulti(), digestIn('multi'))
      })

      it('of a sparse one its index and the platform that is here, and the other is refused', async () => {
        assert.equal(digestOf(await raw('sparse')), digestIn('sparse'))
        await copyArch('amd64')
        await assert.rejects(copyArch('arm64'), /503|did not answer|unavailable/i)
      })

      it('referrers that are here are listed, with a warning', async () => {
        const { digests, warning } = await referrers()
        assert.equal(digests.length, 1)
        assert.match(warning ?? '', /may not be all/)
      })
    })
  })
}
