import { Readable } from 'node:stream'
import { discard } from './bodies.ts'
import { parseChallenges } from './challenge.ts'
import { type Credentials, UpstreamTokens, basic, headerOf } from './tokens.ts'
import {
  type Answer,
  type Ask,
  type Method,
  type Transport,
  type TransportOptions,
  openTransport,
} from './transport.ts'
import { type Trust, isSameOrigin, isTrusted } from './trust.ts'
import { UpstreamFailure, failureOf } from './upstream-failure.ts'

/** How to reach a registry, and as whom. */
export interface SessionOptions extends TransportOptions {
  readonly url: URL
  readonly credentials?: Credentials | undefined
  /** Hosts to which it may send us, besides its own domain: see {@link isTrusted}. */
  readonly trustedHosts: readonly string[]
  /** Hosts to which it may send us for content alone. */
  readonly contentHosts: readonly string[]
  /** Whether tokens are asked for that may push as well. */
  readonly pushes?: boolean
  /** Told what goes to and fro. */
  readonly observer?: UpstreamObserver
}

/** What is told of the requests to an upstream. */
export interface UpstreamObserver {
  /** It began to answer one after so many milliseconds. */
  answered(ms: number): void
  /** Bytes of content came. */
  add(name: 'upstreamBytes', bytes: number): void
  failed(failure: UpstreamFailure): void
  limited(rate: RateLimit): void
}

/** What Docker Hub and others tell about what is left of our quota. */
export interface RateLimit {
  /** Pulls in its window. */
  readonly limit: number | undefined
  readonly remaining: number | undefined
}

const MOST_REDIRECTS = 5

/**
 * Requests to one registry: distribution-spec, "Token authentication". Nothing of whoever asks us goes along. Follows
 * redirects and token realms only where {@link isTrusted} says so; credentials and tokens go to its own origin alone.
 * Every method fails with UpstreamFailure, or the signal's reason.
 */
export class UpstreamSession {
  readonly host: string
  readonly #options: SessionOptions
  readonly #trust: Trust
  readonly #transport: Transport
  readonly #tokens: UpstreamTokens
  /** Whether it is known to take our credentials as they are, so that a body need not be sent twice. */
  #takesBasic = false

  constructor(options: SessionOptions) {
    this.host = options.url.host
    this.#options = options
    this.#trust = { upstream: options.url, hosts: options.trustedHosts, contentHosts: options.contentHosts }
    this.#transport = openTransport(options)
    this.#tokens = new UpstreamTokens(this.#transport, this.#trust, options.credentials)
  }

  /**
   * One request with what it takes to log in. `at` is a path in the repository, or in the registry where there is none, or
   * a URL. A body that is a stream is read once.
   */
  async request(method: Method, repository: string | undefined, at: string | URL, ask: Ask): Promise<Answer> {
    const url = this.urlOf(repository, at)
    const scope = this.#scopeOf(repository)
    const held = this.#tokens.held(scope)
    const known = held === undefined ? this.#basic() : `Bearer ${held}`
    const answer = await this.send(method, url, ask, known)
    if (answer.statusCode !== 401) return answer
    await answer.body.dump()
    if (held !== undefined) this.#tokens.drop(scope, held)
    const authorization = await this.authorize(scope, answer)
    if (ask.body instanceof Readable) {
      throw new UpstreamFailure('failed', `${this.host} wanted another login in the middle of an upload`)
    }
    return await this.send(method, url, ask, authorization)
  }

  /** Where a request goes. */
  urlOf(repository: string | undefined, at: string | URL): URL {
    if (at instanceof URL) return at
    return new URL(
      `${this.#options.url.href.replace(/\/+$/, '')}/v2/${repository === undefined ? '' : `${repository}/`}${at}`,
    )
  }

  #scopeOf(repository: string | undefined): string {
    if (repository === undefined) return 'registry:catalog:*'
    return `repository:${repository}:${this.#options.pushes === true ? 'pull,push' : 'pull'}`
  }

  #basic(): string | undefined {
    const { credentials } = this.#options
    return this.#takesBasic && credentials !== undefined ? basic(credentials) : undefined
  }

  /** The value of `Authorization` that a challenge asks for; the scope is empty for who only says who they are. */
  async authorize(scope: string, { headers }: Answer): Promise<string> {
    const offers = parseChallenges([headers['www-authenticate'] ?? ''].flat().join(', '))
    const bearer = offers.find(({ scheme }) => scheme === 'bearer')
    if (bearer !== undefined) return `Bearer ${await this.#tokens.ask(scope, bearer)}`
    const { credentials } = this.#options
    if (credentials !== undefined && offers.some(({ scheme }) => scheme === 'basic')) {
      this.#takesBasic = true
      return basic(credentials)
    }
    throw new UpstreamFailure('denied', `${this.host} wants a login that the mirror does not have`)
  }

  /** One request and, where it only reads, the redirects it leads to. */
  async send(method: Method, start: URL, ask: Ask, authorization: string | undefined): Promise<Answer> {
    const isRead = method === 'GET' || method === 'HEAD'
    // What a digest checks may come from anybody's host that was named; the rest only from whom the upstream trusts itself.
    const purpose = start.pathname.includes('/blobs/') ? 'content' : 'token'
    let url = start
    for (let hops = 0; ; hops += 1) {
      const secret =
        authorization !== undefined && isSameOrigin(this.#options.url, url) ? { Authorization: authorization } : {}
      const began = performance.now()
      const answer = await this.#transport.send(method, url, { ...ask, headers: { ...ask.headers, ...secret } })
      this.#options.observer?.answered(performance.now() - began)
      this.#noteRateLimit(answer)
      const location = headerOf(answer.headers['location'])
      if (!isRead || answer.statusCode < 300 || answer.statusCode > 399 || location === undefined) return answer
      discard(answer.body)
      const next = URL.parse(location, url.href)
      if (next === null || hops === MOST_REDIRECTS || !isTrusted(this.#trust, next, purpose)) {
        throw new UpstreamFailure('refused', `${this.host} redirects to ${next?.host ?? 'nowhere'}`)
      }
      url = next
    }
  }

  #noteRateLimit({ headers }: Answer): void {
    const [limit, remaining] = [amountOf(headers['ratelimit-limit']), amountOf(headers['ratelimit-remaining'])]
    if (limit !== undefined || remaining !== undefined) this.#options.observer?.limited({ limit, remaining })
  }

  /** Where an answer leads that says where to go on. @throws UpstreamFailure `refused` where that is not trusted */
  location(answer: Answer, asked: string | URL, repository: string): URL {
    const next = URL.parse(headerOf(answer.headers['location']) ?? '', this.urlOf(repository, asked).href)
    if (next !== null && isTrusted(this.#trust, next, 'token')) return next
    throw new UpstreamFailure('refused', `${this.host} leads to ${next?.origin ?? 'nowhere'} for an upload`)
  }

  /** What an answer means that is none; undefined where it is one. */
  failureOf({ statusCode, headers }: Answer): UpstreamFailure | undefined {
    return failureOf(this.host, statusCode, headerOf(headers['retry-after']))
  }

  async close(): Promise<void> {
    await this.#transport.close()
  }
}

/** The number in a header such as Docker Hub's `ratelimit-remaining: 76;w=21600`. */
function amountOf(value: string | string[] | undefined): number | undefined {
  const digits = /^(\d{1,15})(?:;|$)/.exec(headerOf(value) ?? '')?.[1]
  return digits === undefined ? undefined : Number(digits)
}
