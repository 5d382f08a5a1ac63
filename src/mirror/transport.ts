import type { Readable } from 'node:stream'
import { Agent, type Dispatcher, ProxyAgent, request } from 'undici'
import { isPrivateHost, publicLookup } from '../public-address.ts'
import { type Proxies, proxyFor } from './proxies.ts'
import { UpstreamFailure } from './upstream-failure.ts'

const CONNECT_MS = 10_000
/** Without an answer for this long a server is given up; containerd waits as long before it goes to the next host. */
const HEADERS_MS = 30_000
/** A body on which nothing moves for this long is broken off, and taken up again where it was. */
const BODY_IDLE_MS = 60_000

/** How requests leave the machine. */
export interface TransportOptions {
  /** Whether addresses of our own network may be asked. */
  readonly allowPrivate: boolean
  /** Certificate authorities (PEM) to trust besides the usual ones. */
  readonly ca?: readonly string[]
  /** HTTP proxies to go through; they resolve names themselves, so addresses are their concern then. */
  readonly proxies?: Proxies
}

/** An answer whose body has not been read; whoever has it reads it, dumps it or destroys it. */
export type Answer = Dispatcher.ResponseData

/** Sends single requests; follows nothing. Only what {@link TransportOptions.allowPrivate} lets through. */
export interface Transport {
  /** @throws UpstreamFailure `failed` where there is no answer, `refused` where the address is not public; the signal's reason. */
  send(method: Method, url: URL, ask: Ask): Promise<Answer>
  close(): Promise<void>
}

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/** What goes with a request. */
export interface Ask {
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string | Uint8Array | Readable | undefined
  /** How long the answer may take once all is sent, in milliseconds, where that is longer than usual. */
  readonly answerMs?: number | undefined
  readonly signal: AbortSignal
}

/** Opens connections of one upstream. */
export function openTransport({ allowPrivate, ca, proxies = { without: [] } }: TransportOptions): Transport {
  const trusted = ca === undefined ? {} : { ca: [...ca] }
  const limits = { headersTimeout: HEADERS_MS, bodyTimeout: BODY_IDLE_MS }
  const direct = new Agent({
    ...limits,
    connect: { timeout: CONNECT_MS, ...trusted, ...(allowPrivate ? {} : { lookup: publicLookup }) },
  })
  const proxied = new Map<string, ProxyAgent>()
  const dispatcherFor = (url: URL): Dispatcher => {
    const uri = proxyFor(url, proxies)
    if (uri === undefined) return direct
    const known = proxied.get(uri)
    if (known !== undefined) return known
    // A tunnel for HTTPS only: proxies refuse to make one to other ports than 443.
    const agent = new ProxyAgent({ ...limits, uri, proxyTunnel: false, requestTls: trusted })
    proxied.set(uri, agent)
    return agent
  }
  return {
    async send(method, url, ask) {
      if (!allowPrivate && isPrivateHost(url)) throw privateFault(url)
      try {
        return await request(url, {
          dispatcher: dispatcherFor(url),
          method,
          headers: { 'User-Agent': 'berth', ...ask.headers },
          ...(ask.body === undefined ? {} : { body: ask.body }),
          ...(ask.answerMs === undefined ? {} : { headersTimeout: ask.answerMs }),
          signal: ask.signal,
        })
      } catch (error) {
        throw translated(error, url, ask.signal)
      }
    },
    async close() {
      await Promise.all([direct, ...proxied.values()].map(agent => agent.destroy()))
    },
  }
}

function translated(error: unknown, url: URL, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (error instanceof Error && error.name === 'PrivateAddress') return privateFault(url, error)
  return new UpstreamFailure('failed', `${url.host} did not answer: ${reasonOf(error)}`, { cause: error })
}

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code === '' ? String(error) : code
}

function privateFault(url: URL, cause?: unknown): UpstreamFailure {
  return new UpstreamFailure('refused', `${url.host} is not a public address, which the mirror does not allow`, {
    cause,
  })
}
