import { BlockList, isIP } from 'node:net'

/** HTTP proxies by the scheme of what is asked, and what is reached without them: the environment's conventions. */
export interface Proxies {
  /** URL of the proxy for `http:`. */
  readonly http?: string | undefined
  /** URL of the proxy for `https:`. */
  readonly https?: string | undefined
  /** Entries of `NO_PROXY`: see {@link proxyFor}. */
  readonly without: readonly string[]
}

const PORTS: Readonly<Record<string, string>> = { 'http:': '80', 'https:': '443' }

/**
 * The proxy through which a URL is asked, or undefined where it is asked directly. Decided for every URL: redirects and
 * token realms lead to other hosts than the upstream. An entry of {@link Proxies.without} is `*`, a host (which stands for
 * its subdomains too, a leading `.` or `*.` makes no difference), an address or a network; a host or address may have a
 * port, which must be the URL's then.
 */
export function proxyFor(url: URL, { http, https, without }: Proxies): string | undefined {
  const proxy = url.protocol === 'https:' ? https : http
  if (proxy === undefined) return undefined
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = url.port === '' ? PORTS[url.protocol] : url.port
  return without.some(entry => matches(entry.toLowerCase(), host, port)) ? undefined : proxy
}

function matches(entry: string, host: string, port: string | undefined): boolean {
  if (entry === '*') return true
  const [, bracketed, plain, wanted] = /^(?:\[([0-9a-f:.]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [undefined, entry]
  if (wanted !== undefined && wanted !== port) return false
  const name = bracketed ?? plain ?? entry
  const [address = '', bits] = name.split('/')
  const family = isIP(address)
  if (family === 0) {
    const domain = name.replace(/^\*?\./, '')
    return isIP(host) === 0 && domain !== '' && (host === domain || host.endsWith(`.${domain}`))
  }
  if (isIP(host) !== family) return false
  const network = new BlockList()
  const version = family === 4 ? 'ipv4' : 'ipv6'
  const most = family === 4 ? 32 : 128
  if (bits !== undefined && !(/^\d+$/.test(bits) && Number(bits) <= most)) return false
  network.addSubnet(address, bits === undefined ? most : Number(bits), version)
  return network.check(host, version)
}
