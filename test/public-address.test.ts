import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { isPrivateHost } from '../src/public-address.ts'

void suite('which addresses are of our own network (RFC 6890)', () => {
  const table: readonly (readonly [string, boolean])[] = [
    ['8.8.8.8', false],
    ['1.1.1.1', false],
    ['104.16.1.1', false],
    ['172.15.0.1', false],
    ['172.32.0.1', false],
    ['[2606:4700::1111]', false],
    ['[2a00:1450:4001::1]', false],
    ['registry.example', false],
    ['127.0.0.1', true],
    ['10.1.2.3', true],
    ['172.16.0.1', true],
    ['192.168.1.1', true],
    ['169.254.169.254', true],
    ['100.64.0.1', true],
    ['0.0.0.0', true],
    ['224.0.0.1', true],
    ['2130706433', true],
    ['[::1]', true],
    ['[::ffff:10.0.0.1]', true],
    ['[::ffff:8.8.8.8]', true],
    ['[64:ff9b::a00:1]', true],
    ['[2001::1]', true],
    ['[fd00::1]', true],
    ['[fe80::1]', true],
    ['[fec0::1]', true],
  ]
  for (const [host, expected] of table) {
    void test(`${host}: ${expected ? 'ours' : 'public, or a name that is looked up first'}`, () => {
      assert.equal(isPrivateHost(new URL(`http://${host}/`)), expected)
    })
  }
})
