import { SocketAddress, isIPv4, isIPv6 } from 'node:net'

/** What a client owns at least of IPv6, in bits: it may choose any address of its subnet (RFC 7421). */
const SUBNET_BITS = 64
const GROUPS = 8
const GROUP_BITS = 16
const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/
/** Of what is no address, such as a name that a proxy made up (RFC 7239 section 6.3). */
const MAX_LENGTH = 100

/**
 * Who counts as one client: an IPv4 address, also where it is written as IPv6, or the network of an IPv6 address. What is
 * no address stands for itself.
 * @param bits of an IPv6 address that name the network, a multiple of 16
 */
export function networkOf(address: string, bits = SUBNET_BITS): string {
  const [plain = ''] = address.split('%', 1)
  if (isIPv4(plain) || !isIPv6(plain)) return plain.slice(0, MAX_LENGTH)
  // The system writes one address in one way: RFC 5952.
  const { address: canonical } = new SocketAddress({ address: plain, family: 'ipv6' })
  const mapped = MAPPED.exec(canonical)?.[1]
  if (mapped !== undefined) return mapped
  const [head = '', tail = ''] = canonical.split('::')
  const before = head === '' ? [] : head.split(':')
  const after = tail === '' ? [] : tail.split(':')
  const groups = [...before, ...Array.from({ length: GROUPS - before.length - after.length }, () => '0'), ...after]
  return `${groups.slice(0, bits / GROUP_BITS).join(':')}::/${bits}`
}

/** How much of an IPv6 address a site has at least in common: RFC 6177 gives it a /48 at most. */
const SITE_BITS = 48

/** Whose turns at judging passwords are counted together: whoever owns a site has many networks. */
export function siteOf(address: string): string {
  return networkOf(address, SITE_BITS)
}
