import type { Readable } from 'node:stream'
import { type Digest, tryParseDigest } from '../oci/digest.ts'
import { discard, readBytes } from './bodies.ts'
import { Throttle, metered } from './throttle.ts'
import { headerOf } from './tokens.ts'
import type { Answer, Ask, Method } from './transport.ts'
import { UpstreamFailure, WrongRange, failureOf } from './upstream-failure.ts'
import { type ProbeStep, probe } from './upstream-probe.ts'
import { type SessionOptions, UpstreamSession } from './upstream-session.ts'

/** A registry to fetch from. */
export interface UpstreamOptions extends SessionOptions {
  /** Bytes of a manifest or list at most. */
  readonly documentMaxBytes: number
  /** Bytes a second that blobs take together at most; without it as many as come. */
  readonly bytesPerSecond?: number | undefined
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

/**
 * A client of one upstream registry: distribution-spec, "Pull". What {@link UpstreamSession} guards holds for all of it.
 * Every method fails with UpstreamFailure, or the signal's reason.
 */
export class Upstream {
  readonly host: string
  readonly #options: UpstreamOptions
  readonly #session: UpstreamSession
  readonly #throttle: Throttle | undefined

  constructor(options: UpstreamOptions) {
    this.host = options.url.host
    this.#options = options
    this.#session = new UpstreamSession(options)
    this.#throttle = options.bytesPerSecond === undefined ? undefined : new Throttle(options.bytesPerSecond)
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
    const answer = await this.#session.request(method, repository, at, { headers, signal, ...more })
    const retryAfter = headerOf(answer.headers['retry-after'])
    if (answer.statusCode >= 200 && answer.statusCode < 300) return answer
    const said = await reasonIn(answer, this.host)
    const failure = failureOf(this.host, answer.statusCode, retryAfter)
    const message = `${failure?.message ?? `${this.host} answered ${answer.statusCode}`}${said}`
    throw new UpstreamFailure(failure?.kind ?? 'refused', message, retryAfter === undefined ? {} : { retryAfter })
  }

  /** Where an answer leads that says where to go on. @throws UpstreamFailure `refused` where that is not trusted */
  location(answer: Answer, asked: string | URL, repository: string): URL {
    return this.#session.location(answer, asked, repository)
  }

  /** See {@link probe}; with a repository, also whether that is shown. */
  async probe(repository: string | undefined, signal: AbortSignal): Promise<readonly ProbeStep[]> {
    const show = async (name: string): Promise<string> => {
      await this.document(name, 'tags/list', new URLSearchParams({ n: '1' }), signal)
      return `${name} can be pulled`
    }
    const { credentials } = this.#options
    return await probe(
      this.#session,
      credentials?.username,
      repository === undefined ? undefined : () => show(repository),
      signal,
    )
  }

  async close(): Promise<void> {
    await this.#session.close()
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
      const answer = await this.#session.request(method, repository, path, { headers, signal })
      const failure = this.#session.failureOf(answer)
      if (failure === undefined || tolerated.includes(answer.statusCode)) return answer
      discard(answer.body)
      throw failure
    } catch (error) {
      if (error instanceof UpstreamFailure) this.#options.observer?.failed(error)
      throw error
    }
  }
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
