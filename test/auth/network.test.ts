import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { networkOf, siteOf } from '../../src/auth/network.ts'

void suite('who counts as one client', () => {
  const same: Readonly<Record<string, readonly [address: string, network: string]>> = {
    'an IPv4 address': ['192.0.2.1', '192.0.2.1'],
    'an IPv4-mapped address, as IPv4 (RFC 4291 section 2.5.5.2)': ['::ffff:192.0.2.1', '192.0.2.1'],
    'an IPv4-mapped address in hexadecimal': ['::FFFF:c000:201', '192.0.2.1'],
    'an IPv4-mapped address in full': ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    'an IPv6 address, by its /64 (RFC 7421)': ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    'an IPv6 address written otherwise (RFC 5952)': ['2001:0DB8:0001:0002::6', '2001:db8:1:2::/64'],
    'an IPv6 address with zeros at the start': ['::1', '0:0:0:0::/64'],
    'an IPv6 address with zeros within the network': ['2001:db8::1', '2001:db8:0:0::/64'],
    'an IPv6 address with zeros at the end': ['2001:db8:1:2:3::', '2001:db8:1:2::/64'],
    'an IPv6 address that ends in an IPv4 one': ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
    'an IPv6 address with a zone (RFC 4007 section 11)': ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    'what is no address': ['_hidden', '_hidden'],
    'no address at all, as on a socket of the machine': ['', ''],
  }
  for (const [what, [address, network]] of Object.entries(same)) {
    test(what, () => assert.equal(networkOf(address), network))
  }

  test('a site of IPv6 is its /48 (RFC 6177), one of IPv4 its address', () => {
    assert.equal(siteOf('2001:db8:1:2::1'), '2001:db8:1::/48')
    assert.equal(siteOf('2001:db8:1:ffff::1'), '2001:db8:1::/48')
    assert.equal(siteOf('::ffff:192.0.2.1'), '192.0.2.1')
  })

  test('what is no address, however long, takes little memory (CWE-770)', () => {
    assert.ok(networkOf('x'.repeat(10_000)).length <= 100)
  })
})
