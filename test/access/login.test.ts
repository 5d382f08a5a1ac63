import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AuditTrail } from '../../src/access/audit-trail.ts'
import type { Authenticator } from '../../src/access/authenticator.ts'
import { GuessLimit } from '../../src/access/guess-limit.ts'
import { Login } from '../../src/access/login.ts'
import { makeSecret } from '../../src/auth/secrets.ts'
import { TurnsTaken } from '../../src/auth/turns.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const SOURCE = { client: '192.0.2.1', requestId: 'r' }
const NO_AUDIT = { add: () => undefined } as unknown as AuditTrail

function loginWith(check: Authenticator['check']): Login {
  const guesses = new GuessLimit({ perAccount: 3, perClient: 100, windowSeconds: 600 })
  return new Login([{ name: 'test', check }], guesses, NO_AUDIT)
}

async function codeOf(result: Promise<unknown>): Promise<string> {
  try {
    await result
    return 'ok'
  } catch (error) {
    return error instanceof RegistryError ? error.code : String(error)
  }
}

const many = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

test('wrong guesses made at the same time count like those made one after the other (OWASP ASVS 6.3.1)', async () => {
  let judged = 0
  const login = loginWith(async () => {
    judged++
    return { refused: 'wrong password' }
  })
  const codes = await Promise.all(
    many(50).map(index => codeOf(login.prove({ name: 'alice', password: `guess ${index}` }, SOURCE))),
  )
  assert.equal(judged, 3)
  assert.equal(codes.filter(code => code === 'TOOMANYREQUESTS').length, 47)
})

test('right logins at the same time are not held off, and cost one check', async () => {
  let judged = 0
  const login = loginWith(async () => {
    judged++
    return { identity: { kind: 'user', name: 'alice' } }
  })
  const shown = { name: 'alice', password: 'right' }
  const codes = await Promise.all(many(50).map(() => codeOf(login.prove(shown, SOURCE))))
  assert.deepEqual([...new Set(codes)], ['ok'])
  assert.equal(judged, 1)
})

test('a login that could not be judged does not count as a wrong guess', async () => {
  let isDown = true
  const login = loginWith(async () => {
    if (isDown) throw new Error('the index is down')
    return { identity: { kind: 'user', name: 'alice' } }
  })
  for (const index of many(10)) {
    assert.equal(await codeOf(login.prove({ name: 'alice', password: `${index}` }, SOURCE)), 'Error: the index is down')
  }
  isDown = false
  assert.equal(await codeOf(login.prove({ name: 'alice', password: 'right' }, SOURCE)), 'ok')
})

test('those who show the same at the same time share one check, and each is under the limit of its own address', async () => {
  const gate = Promise.withResolvers<void>()
  let judged = 0
  const login = loginWith(async ({ password }) => {
    if (password !== 'right') return { refused: 'wrong password' }
    judged += 1
    await gate.promise
    return { identity: { kind: 'user', name: 'alice' } }
  })
  const from = (client: string, password: string): Promise<string> =>
    codeOf(login.prove({ name: 'alice', password }, { client, requestId: 'r' }))
  for (const index of many(3)) assert.equal(await from('192.0.2.1', `guess ${index}`), 'UNAUTHORIZED')
  const all = Promise.all(['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.2'].map(client => from(client, 'right')))
  gate.resolve()
  assert.deepEqual(await all, ['TOOMANYREQUESTS', 'ok', 'ok', 'ok'])
  assert.equal(judged, 1)
})

test('that there is no room for the check of one address refuses no other that shows the same (CWE-400)', async () => {
  const gate = Promise.withResolvers<void>()
  const busy = new RegistryError('UNAVAILABLE', { cause: new TurnsTaken() })
  const login = loginWith(async (_shown, { client }) => {
    await gate.promise
    if (client === '192.0.2.1') throw busy
    return { identity: { kind: 'user', name: 'alice' } }
  })
  const all = Promise.all(
    ['192.0.2.1', '192.0.2.2'].map(client =>
      codeOf(login.prove({ name: 'alice', password: 'right' }, { client, requestId: 'r' })),
    ),
  )
  gate.resolve()
  assert.deepEqual(await all, ['UNAVAILABLE', 'ok'])
})

test('a token is judged while its address is held off for passwords: nobody guesses one (RFC 6749 section 10.10)', async () => {
  const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url')
  const identityToken = `${encode({ alg: 'RS256', kid: 'k' })}.${encode({ iss: 'https://ci.example' })}.c2ln`
  const rights = [makeSecret('pat').text, makeSecret('robot').text, identityToken]
  const login = loginWith(async ({ password }) =>
    rights.includes(password) ? { identity: { kind: 'user', name: 'alice' } } : { refused: 'wrong password' },
  )
  const shows = (name: string, password: string): Promise<string> => codeOf(login.prove({ name, password }, SOURCE))
  for (const index of many(100)) await shows(`stranger${index}`, 'guess')
  assert.equal(await shows('alice', 'guess'), 'TOOMANYREQUESTS')
  for (const right of rights) assert.equal(await shows('alice', right), 'ok')
  // What only looks like one may be a password.
  for (const other of [makeSecret('refresh').text, `${rights[0]}x`, 'berth_pat_']) {
    assert.equal(await shows('alice', other), 'TOOMANYREQUESTS')
  }
})
