import { Readable } from 'node:stream'
import { type Digest, tryParseDigest } from '../oci/digest.ts'
import { discard, readBytes } from './bodies.ts'
import { parseChallenges } from './challenge.ts'
import { Throttle, metered } from './throttle.ts'
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
import { UpstreamFailure, WrongRange, failureOf } from './upstream-failure.ts'

/** A registry to fetch from. */
export interface UpstreamOptions extends TransportOptions {
  readonly url: URL
  readonly credentials?: Credentials | undefined
  /** Hosts to which it may send us, besides its own domain: see {@link isTrusted}. */
  readonly trustedHosts: readonly string[]
  /** Hosts to which it may send us for content alone. */
  readonly contentHosts: readonly string[]
  /** Bytes of a manifest or list at most. */
  readonly documentMaxBytes: number
  /** Whether tokens are asked for that may push as well. */
  readonly pushes?: boolean
  /** Bytes a second that blobs take together at most; without it as many as come. */
  readonly bytesPerSecond?: number | undefined
  /** Told what goes to and fro. */
  readonly observer?: UpstreamObserver
}

/** One thing that was tried at an upstream, and what came of it. */
export interface ProbeStep {
  readonly step: 'reach' | 'login' | 'repository'
  readonly ok: boolean
  readonly message: string
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

/** Everything a manifest can be, as clients say it: without it servers answer another manifest, or none. */
const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  '*/*;q=0.1',
].join(', ')
/** Content that is compressed on the way has another length, and no digest anybody knows. */
const AS_IT_IS = { 'Accept-Encoding': 'identity' }
const MOST_REDIRECTS = 5

/** A manifest as the upstream has it. */
export interface UpstreamManifest {
  readonly mediaType: string
  readonly bytes: Buffer
}

/** Bytes of a blob from `start` on, under way. */
export interface UpstreamBlob {
  readonly body: Readable
  readonly start: number
  /** Bytes of the whole blob, where the upstream says. */
  readonly size: number | undefined
}

/** What Docker Hub and others tell about what is left of our quota. */
export interface RateLimit {
  /** Pulls in its window. */
  readonly limit: number | undefined
  readonly remaining: number | undefined
}

/**
 * A client of one upstream registry: distribution-spec, "Pull". Nothing of whoever asks us goes along. Follows redirects
 * and token realms only where {@link isTrusted} says so; credentials and tokens go to the upstream's own origin alone.
 * Every method fails with UpstreamFailure, or the signal's reason.
 */
export class Upstream {
  readonly host: string
  readonly #options: UpstreamOptions
  readonly #trust: Trust
  readonly #transport: Transport
  readonly #tokens: UpstreamTokens
  readonly #throttle: Throttle | undefined
  /** Whether it is known to take our credentials as they are, so that a body need not be sent twice. */
  #takesBasic = false

  constructor(options: UpstreamOptions) {
    this.host = options.url.host
    this.#options = options
    this.#trust = { upstream: options.url, hosts: options.trustedHosts, contentHosts: options.contentHosts }
    this.#transport = openTransport(options)
    this.#throttle = options.bytesPerSecond === undefined ? undefined : new Throttle(options.bytesPerSecond)
    this.#tokens = new UpstreamTokens(this.#transport, this.#trust, options.credentials)
  }

  /** The digest a tag names now, without the cost of a pull; undefined where the upstream does not say it, or knows no HEAD. */
  async resolve(repository: string, reference: string, signal: AbortSignal): Promise<Digest | undefined> {
    const answer = await this.#ask('HEAD', repository, `manifests/${reference}`, { Accept: ACCEPT }, signal, [405, 501])
    await answer.body.dump()
    if (answer.statusCode >= 400) return undefined
    return tryParseDigest(headerOf(answer.headers['docker-content-digest']) ?? '')
  }

  /** A manifest, verbatim. */
  async manifest(repository: string, reference: string, signal: AbortSignal): Promise<UpstreamManifest> {
    const answer = await this.#ask('GET', repository, `manifests/${reference}`, { Accept: ACCEPT }, signal)
    const bytes = await this.#read(answer)
    return { mediaType: headerOf(answer.headers['content-type']) ?? '', bytes }
  }

  /**
   * A blob from byte `start` on, where the upstream can; from 0 where it takes no ranges.
   * @throws UpstreamFailure; {@link WrongRange} where it answers with another part than was asked for.
   */
  async blob(repository: string, digest: Digest, start: number, signal: AbortSignal): Promise<UpstreamBlob> {
    const range: Record<string, string> = start === 0 ? {} : { Range: `bytes=${start}-` }
    const answer = await this.#ask('GET', repository, `blobs/${digest}`, { ...AS_IT_IS, ...range }, signal, [416])
    const { statusCode } = answer
    const { observer } = this.#options
    const body = metered(answer.body, {
      throttle: this.#throttle,
      onBytes: bytes => observer?.add('upstreamBytes', bytes),
      onBreak: error =>
        observer?.failed(new UpstreamFailure('failed', `${this.host} broke off ${digest}: ${String(error)}`)),
    })
    if (statusCode === 200) return { body, start: 0, size: lengthOf(answer) }
    const part = statusCode === 206 ? partOf(answer) : undefined
    if (part?.start === start) return { body, ...part }
    discard(body)
    if (statusCode === 206 || statusCode === 416) {
      throw new WrongRange(`${this.host} does not answer with the part of ${digest} that was asked for`)
    }
    throw new UpstreamFailure('failed', `${this.host} answered ${statusCode} for a blob`)
  }

  /** Bytes of a blob, where the upstream says in a HEAD; undefined where it does not say, or knows no HEAD. */
  async blobSize(repository: string, digest: Digest, signal: AbortSignal): Promise<number | undefined> {
    const answer = await this.#ask('HEAD', repository, `blobs/${digest}`, AS_IT_IS, signal, [405, 501])
    await answer.body.dump()
    return answer.statusCode === 200 ? lengthOf(answer) : undefined
  }

  /**
   * A JSON document of the repository (`tags/list`, `referrers/…`), or without one of the registry (`_catalog`), and the
   * query of the page after it.
   */
  async document(
    repository: string | undefined,
    path: string,
    query: URLSearchParams,
    signal: AbortSignal,
  ): Promise<{ readonly json: unknown; readonly next: URLSearchParams | undefined }> {
    const text = query.size === 0 ? path : `${path}?${query.toString()}`
    const answer = await this.#ask('GET', repository, text, { Accept: 'application/json, */*;q=0.1' }, signal)
    const bytes = await this.#read(answer)
    const next = /^<([^>]+)>\s*;\s*rel="?next"?/.exec(headerOf(answer.headers['link']) ?? '')?.[1]
    try {
      return {
        json: JSON.parse(bytes.toString('utf8')) as unknown,
        // Only the query is taken: a link to elsewhere leads nowhere.
        next: next === undefined ? undefined : URL.parse(next, this.#options.url.href)?.searchParams,
      }
    } catch (cause) {
      throw new UpstreamFailure('failed', `${this.host} answered no JSON`, { cause })
    }
  }

  /**
   * Asks what anybody has to get through who pulls: whether there is a registry, whether it takes our login, and whether
   * it shows a repository. Ends with what goes wrong; never fails.
   */
  async probe(repository: string | undefined, signal: AbortSignal): Promise<readonly ProbeStep[]> {
    const done: ProbeStep[] = []
    const step = async (name: ProbeStep['step'], ask: () => Promise<string>): Promise<boolean> => {
      try {
        done.push({ step: name, ok: true, message: await ask() })
        return true
      } catch (error) {
        if (!(error instanceof UpstreamFailure)) throw error
        done.push({ step: name, ok: false, message: error.message })
        return false
      }
    }
    const url = new URL(`${this.#base}/v2/`)
    let challenged: Answer | undefined
    const isThere = await step('reach', async () => {
      const answer = await this.#send('GET', url, { headers: {}, signal }, undefined)
      await answer.body.dump()
      if (answer.statusCode === 401) challenged = answer
      const failure = challenged === undefined ? this.#failureOf(answer) : undefined
      if (failure !== undefined) throw failure
      return challenged === undefined ? `${this.host} wants no login` : `${this.host} answers, and wants a login`
    })
    const who = this.#options.credentials === undefined ? 'nobody in particular' : this.#options.credentials.username
    const isIn =
      isThere &&
      (challenged === undefined ||
        (await step('login', async () => {
          const authorization = await this.#authorization('', challenged as Answer)
          const answer = await this.#send('GET', url, { headers: {}, signal }, authorization)
          await answer.body.dump()
          const failure = this.#failureOf(answer)
          if (failure !== undefined) throw failure
          return `${this.host} takes the login of ${who}`
        })))
    if (isIn && repository !== undefined) {
      await step('repository', async () => {
        await this.document(repository, 'tags/list', new URLSearchParams({ n: '1' }), signal)
        return `${repository} can be pulled`
      })
    }
    return done
  }

  /**
   * A request that changes something in a repository: distribution-spec, "Push". `at` is a path in it, or a URL to which
   * an earlier answer led. Follows nothing. A body that is a stream is read once: where the login is refused after that,
   * the failure is `failed`, and the next request asks for a new token.
   * @throws UpstreamFailure; with what the registry says where it refuses.
   */
  async change(
    method: Method,
    repository: string,
    at: string | URL,
    ask: Omit<Ask, 'headers'> & { readonly headers?: Readonly<Record<string, string>> },
  ): Promise<Answer> {
    const { headers = {}, signal, ...more } = ask
    const answer = await this.#request(method, repository, at, { headers, signal, ...more })
    const retryAfter = headerOf(answer.headers['retry-after'])
    if (answer.statusCode >= 200 && answer.statusCode < 300) return answer
    const said = await reasonIn(answer, this.host)
    const failure = failureOf(this.host, answer.statusCode, retryAfter)
    const message = `${failure?.message ?? `${this.host} answered ${answer.statusCode}`}${said}`
    throw new UpstreamFailure(failure?.kind ?? 'refused', message, retryAfter === undefined ? {} : { retryAfter })
  }

  /** Where an answer leads that says where to go on. @throws UpstreamFailure `refused` where that is not trusted */
  location(answer: Answer, asked: string | URL, repository: string): URL {
    const next = URL.parse(headerOf(answer.headers['location']) ?? '', this.#urlOf(repository, asked).href)
    if (next !== null && isTrusted(this.#trust, next, 'token')) return next
    throw new UpstreamFailure('refused', `${this.host} leads to ${next?.origin ?? 'nowhere'} for an upload`)
  }

  async close(): Promise<void> {
    await this.#transport.close()
  }

  get #base(): string {
    return this.#options.url.href.replace(/\/+$/, '')
  }

  #failureOf({ statusCode, headers }: Answer): UpstreamFailure | undefined {
    return failureOf(this.host, statusCode, headerOf(headers['retry-after']))
  }

  async #read(answer: Answer): Promise<Buffer> {
    const { documentMaxBytes, observer } = this.#options
    try {
      const bytes = await readBytes(answer.body, documentMaxBytes, this.host)
      observer?.add('upstreamBytes', bytes.byteLength)
      return bytes
    } catch (error) {
      if (error instanceof UpstreamFailure) observer?.failed(error)
      throw error
    }
  }

  /** Asks for something of a repository. Failures are told. */
  async #ask(
    method: 'GET' | 'HEAD',
    repository: string | undefined,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
    tolerated: readonly number[] = [],
  ): Promise<Answer> {
    try {
      const answer = await this.#request(method, repository, path, { headers, signal })
      const failure = this.#failureOf(answer)
      if (failure === undefined || tolerated.includes(answer.statusCode)) return answer
      discard(answer.body)
      throw failure
    } catch (error) {
      if (error instanceof UpstreamFailure) this.#options.observer?.failed(error)
      throw error
    }
  }

  /** One request with what it takes to log in. */
  async #request(method: Method, repository: string | undefined, at: string | URL, ask: Ask): Promise<Answer> {
    const url = this.#urlOf(repository, at)
    const scope = this.#scopeOf(repository)
    const held = this.#tokens.held(scope)
    const known = held === undefined ? this.#basic() : `Bearer ${held}`
    const answer = await this.#send(method, url, ask, known)
    if (answer.statusCode !== 401) return answer
    await answer.body.dump()
    if (held !== undefined) this.#tokens.drop(scope, held)
    const authorization = await this.#authorization(scope, answer)
    if (ask.body instanceof Readable) {
      throw new UpstreamFailure('failed', `${this.host} wanted another login in the middle of an upload`)
    }
    return await this.#send(method, url, ask, authorization)
  }

  #urlOf(repository: string | undefined, at: string | URL): URL {
    if (at instanceof URL) return at
    return new URL(`${this.#base}/v2/${repository === undefined ? '' : `${repository}/`}${at}`)
  }

  #scopeOf(repository: string | undefined): string {
    if (repository === undefined) return 'registry:catalog:*'
    return `repository:${repository}:${this.#options.pushes === true ? 'pull,push' : 'pull'}`
  }

  #basic(): string | undefined {
    const { credentials } = this.#options
    return this.#takesBasic && credentials !== undefined ? basic(credentials) : undefined
  }

  async #authorization(scope: string, { headers }: Answer): Promise<string> {
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
  async #send(method: Method, start: URL, ask: Ask, authorization: string | undefined): Promise<Answer> {
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
}

/** The number in a header such as Docker Hub's `ratelimit-remaining: 76;w=21600`. */
function amountOf(value: string | string[] | undefined): number | undefined {
  const digits = /^(\d{1,15})(?:;|$)/.exec(headerOf(value) ?? '')?.[1]
  return digits === undefined ? undefined : Number(digits)
}

function lengthOf({ headers }: Answer): number | undefined {
  const text = headerOf(headers['content-length'])
  return text === undefined || !/^\d+$/.test(text) ? undefined : Number(text)
}

/** What a 206 says that it holds (RFC 9110 section 14.4); undefined where it makes no sense. */
function partOf(answer: Answer): { readonly start: number; readonly size: number | undefined } | undefined {
  const said = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headerOf(answer.headers['content-range']) ?? '')
  if (said === null) return undefined
  const [start, end] = [Number(said[1]), Number(said[2])]
  const size = said[3] === '*' ? undefined : Number(said[3])
  const length = lengthOf(answer)
  if (end < start || (size !== undefined && end >= size)) return undefined
  return length === undefined || length === end - start + 1 ? { start, size } : undefined
}

const MOST_REASON_BYTES = 64 * 1024

/** What a registry says why it refuses (distribution-spec, "Error Codes"), to stand behind its status; empty where it says nothing. */
async function reasonIn({ body }: Answer, host: string): Promise<string> {
  try {
    const { errors } = JSON.parse((await readBytes(body, MOST_REASON_BYTES, host)).toString('utf8')) as {
      readonly errors?: readonly { readonly code?: unknown; readonly message?: unknown }[]
    }
    const words = [errors?.[0]?.code, errors?.[0]?.message].filter(word => typeof word === 'string' && word !== '')
    return words.length === 0 ? '' : `: ${words.join(' ').slice(0, 300)}`
  } catch {
    return ''
  }
}
