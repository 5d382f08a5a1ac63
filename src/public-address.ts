import { lookup } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'

/** A host that is, or resolves to, an address of our own network. */
export class PrivateAddress extends Error {
  override readonly name = 'PrivateAddress'
  readonly host: string

  constructor(host: string) {
    super(`${host} is not a public address`)
    this.host = host
  }
}

/**
 * Resolves like the system does, but never to an address that is not public. Given to whatever connects, so that the
 * address is checked as it is connected to: a name that resolves to something else a moment later gains nothing. A host
 * that is an address itself is never resolved: see {@link isPrivateHost}. Fails with {@link PrivateAddress}.
 */
export const publicLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    const bad = error === null ? addresses.find(({ address }) => isPrivate(address)) : undefined
    const [first] = addresses ?? []
    if (error !== null) callback(error, '', 0)
    else if (bad !== undefined) callback(new PrivateAddress(hostname), '', 0)
    else if (options.all === true) callback(null, addresses)
    else callback(null, first?.address ?? '', first?.family)
  })
}

/** Whether the host of a URL is written as an address that is not public. */
export function isPrivateHost(url: URL): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return isIP(host) !== 0 && isPrivate(host)
}

/** One list for each family: an IPv4 address would be looked up as an IPv6 one that embeds it, which all are refused. */
const PRIVATE = { ipv4: new BlockList(), ipv6: new BlockList() }
for (const range of [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/3',
]) {
  addRange(range, 'ipv4')
}
// Besides private ones those that embed an IPv4 address, by which a private one could be reached.
for (const range of [
  '::/96',
  '::ffff:0:0/96',
  '64:ff9b::/32',
  '2001::/32',
  '2002::/16',
  'fc00::/7',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
]) {
  addRange(range, 'ipv6')
}

function addRange(range: string, family: 'ipv4' | 'ipv6'): void {
  const [network = '', prefix] = range.split('/')
  PRIVATE[family].addSubnet(network, Number(prefix), family)
}

function isPrivate(address: string): boolean {
  const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
  return PRIVATE[family].check(address, family)
}
