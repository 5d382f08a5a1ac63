import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AuditTrail } from '../../src/access/audit-trail.ts'
import type { Authenticator } from '../../src/access/authenticator.ts'
import { createGuessLimit } from '../../src/access/guess-limit.ts'
import { Login } from '../../src/access/login.ts'
import { RegistryError } from '../../src/oci/errors.ts'

const SOURCE = { client: '192.0.2.1', requestId: 'r' }
const NO_AUDIT = { add: () => undefined } as unknown as AuditTrail

function loginWith(check: Authenticator['check']): Login {
  const guesses = createGuessLimit({ perAccount: 3, perClient: 100, windowSeconds: 600 })
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

test('who is held off fills no memory with names he tries (CWE-770)', async () => {
  const guesses = createGuessLimit({ perAccount: 1, perClient: 1, windowSeconds: 600 })
  const client = '192.0.2.1'
  assert.equal(await guesses.begin('a', client), undefined)
  assert.ok(((await guesses.begin('b', client)) ?? 0) > 0)
  // Two guesses less of this client, none of them for b: so b is only held off if its name was counted.
  await guesses.forget('c', client)
  await guesses.forget('c', client)
  assert.equal(await guesses.begin('b', client), undefined)
})
