import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import bcrypt from 'bcrypt'
import { HtpasswdFault, parseHtpasswd } from '../../src/auth/htpasswd.ts'
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

  test('makes a wrong name cost what its costliest hash does: its decoy is no password’s', async () => {
    const { decoy } = parseHtpasswd(`a:${HASH}\nb:${HASH.replace('$04$', '$06$')}\n`)
    assert.match(decoy, /^\$2b\$06\$/)
    assert.equal(await verifyPassword('', decoy), false)
  })
})
