import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { welcome } from '../../src/cli/serve.ts'
import { loadConfig } from '../../src/config.ts'

const said = (env: Record<string, string>): string => welcome(loadConfig(env, '/'), 'http://127.0.0.1:5000')

void suite('what a start says', () => {
  test('that nobody has to log in, and how that is changed', () => {
    for (const env of [{}, { BERTH_AUTH_MODE: 'open' }]) {
      assert.match(said(env), /logins +off: whoever reaches this address may pull, push and delete/)
      assert.match(said(env), /BERTH_AUTH_MODE=token/)
      assert.doesNotMatch(said(env), /docker login/)
    }
  })

  test('that everybody has to log in, by what, and to do that before the first push', () => {
    const env = { BERTH_AUTH_MODE: 'token', BERTH_AUTH_REALM: 'https://auth.example/token' }
    assert.match(said(env), /logins +on .*tokens come from https:\/\/auth\.example\/token/)
    assert.match(said(env), /docker login 127\.0\.0\.1:5000\n +docker tag/)
  })
})
