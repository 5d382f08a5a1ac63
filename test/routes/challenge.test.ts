import assert from 'node:assert/strict'
import { request } from 'node:http'
import { after, before, suite, test } from 'node:test'
import { type AccessServer, PASSWORD, basic, startAccessServer } from '../support/access.ts'

interface Answer {
  readonly status: number | undefined
  /** Each header line of that name: `fetch` would join them. */
  readonly challenges: readonly string[]
  readonly body: string
}

void suite('the challenge of a 401 (RFC 9110 section 11.6.1)', () => {
  let server: AccessServer

  before(async () => {
    server = await startAccessServer()
  })
  after(() => server.stop())

  /** A request whose path is sent as it is written. */
  async function get(path: string, authorization?: string): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const headers = authorization === undefined ? {} : { Authorization: authorization }
    request(server.url, { path, headers }, response => {
      let body = ''
      response.setEncoding('utf8')
      response.on('data', (text: string) => (body += text))
      response.on('end', () => {
        const challenges = response.headersDistinct['www-authenticate'] ?? []
        resolve({ status: response.statusCode, challenges, body })
      })
    })
      .on('error', reject)
      .end()
    return await promise
  }

  /** Docker runs every challenge it is sent and lets Basic win; containerd reads one scheme a line (moby/moby #50896). */
  const asked: Readonly<Record<string, readonly [path: string, authorization?: string]>> = {
    'the ping without anything shown': ['/v2/'],
    'the ping with a wrong password': ['/v2/', basic('admin', 'not the password')],
    'the ping with a token that is none': ['/v2/', 'Bearer abc'],
    'the ping with another scheme': ['/v2/', 'Negotiate abc'],
    'a manifest without anything shown': ['/v2/team/app/manifests/1'],
    'the catalog without anything shown': ['/v2/_catalog'],
  }
  for (const [what, [path, authorization]] of Object.entries(asked)) {
    test(`is one of Bearer in one line: ${what}`, async () => {
      const { status, challenges } = await get(path, authorization)
      assert.equal(status, 401)
      assert.equal(challenges.length, 1)
      const [challenge = ''] = challenges
      assert.ok(challenge.startsWith(`Bearer realm="${server.url}/token",service="berth"`), challenge)
      assert.equal(/basic/i.test(challenge), false)
      assert.equal(challenge.includes('error='), authorization !== undefined, challenge)
    })
  }

  /** What the specification's grammar of names does not let through (distribution-spec, "Pulling manifests"). */
  const NO_NAMES: Readonly<Record<string, string>> = {
    'a quote and a parameter': 'a%22,error=%22invalid_token',
    'a line break and a header': 'team%0d%0aX-Header:%20y',
    'a character beyond Latin-1': '%C4%80',
    'a NUL': 'a%00',
    'a backslash': 'team%5Capp',
    'capital letters': 'Team/App',
    'more characters than a name may have': 'a/'.repeat(3000) + 'a',
  }
  for (const [what, name] of Object.entries(NO_NAMES)) {
    test(`says nothing of a name that cannot be, which is NAME_INVALID: ${what}`, async () => {
      for (const path of [`/v2/${name}/manifests/1`, `/v2/${name}/tags/list`, `/v2/${name}/blobs/uploads/x`]) {
        for (const authorization of [undefined, basic('admin', PASSWORD)]) {
          const { status, challenges, body } = await get(path, authorization)
          assert.equal(status, 400, body)
          assert.deepEqual(challenges, [])
          assert.match(body, /"NAME_INVALID"/)
        }
      }
    })
  }
})
