import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import { HtpasswdFault, hashesToCompare, parseHtpasswd } from '../../src/auth/htpasswd.ts'
import { verifyPassword } from '../../src/auth/passwords.ts'

const HASH = await bcrypt.hash('open sesame', 4)

const faultOf = (text: string): string => {
  try {
    parseHtpasswd(text)
    return ''
  } catch (error) {
    assert.ok(error instanceof HtpasswdFault)
    return error.message
  }
}

void suite('an htpasswd file', () => {
  test('holds a user a line; comments and empty lines are passed over (httpd htpasswd, distribution auth/htpasswd)', () => {
    const { hashes } = parseHtpasswd(`# people\r\n\nalice:${HASH}\r\n  Bob.B@example:${HASH}  \n`)
    assert.deepEqual(
      [...hashes],
      [
        ['alice', HASH],
        ['Bob.B@example', HASH],
      ],
    )
    assert.equal(parseHtpasswd('').hashes.size, 0)
  })

  test('takes bcrypt by each of its names, of which y is Apache’s (httpd "Password Formats")', async () => {
    for (const name of ['2a', '2b', '2y']) {
      const hash = HASH.replace('$2b$', `$${name}$`)
      assert.equal(parseHtpasswd(`a:${hash}`).hashes.get('a'), hash)
      assert.equal(await verifyPassword('open sesame', hash), true)
      assert.equal(await verifyPassword('open sesam', hash), false)
    }
  })

  test('is refused with every line that is wrong, and what to do; no hash is shown', () => {
    const text = ['a:$apr1$x$y', 'b:{SHA}zzz', `c d:${HASH}`, 'nothing', `e:${HASH}`, `e:${HASH}`, `f:${HASH}x`].join(
      '\n',
    )
    const fault = faultOf(text)
    for (const line of [1, 2, 3, 4, 6, 7]) assert.match(fault, new RegExp(`line ${line} `))
    assert.doesNotMatch(fault, /line 5|apr1|SHA|\$2/)
    assert.match(fault, /line 1 has no bcrypt hash for a: make one with htpasswd -B/)
    assert.match(fault, /line 6 names e a second time/)
  })

  test('cannot make one login take minutes: costs of bcrypt beyond 14 are refused', () => {
    assert.match(faultOf(`a:${HASH.replace('$04$', '$15$')}`), /cost 15/)
  })

  test('has no user whose name means everyone or nobody, or a robot or CI identity', () => {
    const names = ['everyone', 'everyone-logged-in', 'anonymous', 'Everyone', 'robot+farm', 'ci+web', 'everyones']
    const fault = faultOf(['# users', ...names.map(name => `${name}:${HASH}`)].join('\n'))
    for (const line of [2, 3, 4, 5]) assert.match(fault, new RegExp(`line ${line} names .*, which is the name of no`))
    for (const line of [6, 7]) assert.match(fault, new RegExp(`line ${line} names a user by other than`))
    assert.doesNotMatch(fault, /line 8/)
  })

  test('makes a wrong password cost what its costliest hash does for every name: its decoys are no password’s', async () => {
    const file = parseHtpasswd(`a:${HASH}\nb:${HASH.replace('$04$', '$06$')}\n`)
    const costs = (name: string): number[] =>
      hashesToCompare(file, file.hashes.get(name)).map(hash => bcrypt.getRounds(hash))
    assert.deepEqual(costs('a'), [4, 4, 5])
    assert.deepEqual(costs('b'), [6])
    assert.deepEqual(costs('nobody'), [6])
    const [, ...decoys] = hashesToCompare(file, HASH)
    for (const decoy of [...decoys, ...hashesToCompare(file, undefined)]) {
      for (const password of ['', 'open sesame']) assert.equal(await verifyPassword(password, decoy), false)
    }
  })
})
