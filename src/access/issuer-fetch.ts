import { request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { LookupFunction } from 'node:net'
import { isPrivateHost, PrivateAddress, publicLookup } from '../public-address.ts'

const MAX_BYTES = 512 * 1024
const TIMEOUT_MS = 5_000

/** A document that an issuer did not give, or that must not be asked for. */
export class IssuerFault extends Error {
  override readonly name = 'IssuerFault'
}

/** Reads a JSON document of an issuer. @throws IssuerFault for anything but a small one, given in time and directly. */
export type IssuerFetch = (url: string) => Promise<unknown>

/**
 * Reads over HTTPS from public addresses only, so that the name of an issuer cannot make us ask our own network. The
 * address is checked as it is connected to: a name that resolves to something else a moment later gains nothing.
 * `allowPrivate` lifts both, for an issuer inside one's own network. Redirects are not followed.
 */
export function createIssuerFetch(options: { readonly allowPrivate: boolean }): IssuerFetch {
  return async text => {
    const url = URL.parse(text)
    if (url === null || (url.protocol !== 'https:' && !(options.allowPrivate && url.protocol === 'http:'))) {
      throw new IssuerFault(`${text.slice(0, 200)} is not an https URL`)
    }
    if (!options.allowPrivate && isPrivateHost(url)) throw privateFault(url.hostname)
    const body = await readUrl(url, options.allowPrivate ? undefined : publicLookup)
    try {
      return JSON.parse(body) as unknown
    } catch (cause) {
      throw new IssuerFault(`${url.href} is not JSON`, { cause })
    }
  }
}

async function readUrl(url: URL, look: LookupFunction | undefined): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const ask = url.protocol === 'https:' ? requestHttps : requestHttp
  const request = ask(url, {
    // A connection of its own: a pooled one could have been made without the check of its address.
    agent: false,
    headers: { Accept: 'application/json' },
    signal: AbortSignal.timeout(TIMEOUT_MS),
    ...(look === undefined ? {} : { lookup: look }),
  })
  request.once('error', reject)
  request.once('response', response => {
    const chunks: Buffer[] = []
    let size = 0
    if (response.statusCode !== 200) {
      request.destroy(new IssuerFault(`${url.href} answered ${response.statusCode}`))
      return
    }
    response.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > MAX_BYTES) request.destroy(new IssuerFault(`${url.href} is larger than ${MAX_BYTES} bytes`))
      else chunks.push(chunk)
    })
    response.once('error', reject)
    response.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
  })
  request.end()
  try {
    return await promise
  } catch (cause) {
    if (cause instanceof IssuerFault) throw cause
    if (cause instanceof PrivateAddress) throw privateFault(cause.host)
    throw new IssuerFault(`${url.href} cannot be read`, { cause })
  }
}

function privateFault(host: string): IssuerFault {
  return new IssuerFault(`${host} is not a public address: auth.allowPrivateIssuers allows it`)
}
