import { isTrusted } from './trust.ts'
import type { Trust } from './trust.ts'
import type { Offer } from './challenge.ts'
import { readText } from './bodies.ts'
import type { Transport } from './transport.ts'
import { UpstreamFailure, failureOf } from './upstream-failure.ts'
import { within } from './within.ts'

/** What we are known by at an upstream. */
export interface Credentials {
  readonly username: string
  readonly password: string
}

const MAX_BYTES = 256 * 1024
const ASK_MS = 30_000
/** RFC 6749 and the field: a token without a lifetime lives for a minute. */
const USUAL_SECONDS = 60
const EARLY_MS = 10_000
const MOST_TOKENS = 10_000

interface Held {
  readonly token: string
  readonly until: number
}

/** Tokens of one upstream by scope; those who need one together share one request. */
export class UpstreamTokens {
  readonly #transport: Transport
  readonly #trust: Trust
  readonly #credentials: Credentials | undefined
  readonly #held = new Map<string, Held>()
  readonly #asking = new Map<string, Promise<string>>()

  constructor(transport: Transport, trust: Trust, credentials: Credentials | undefined) {
    this.#transport = transport
    this.#trust = trust
    this.#credentials = credentials
  }

  /** The token for a scope, where one is held that still lives. */
  held(scope: string): string | undefined {
    const held = this.#held.get(scope)
    return held !== undefined && held.until > Date.now() ? held.token : undefined
  }

  /** Forgets a token that was refused, unless it was replaced meanwhile. */
  drop(scope: string, token: string): void {
    if (this.#held.get(scope)?.token === token) this.#held.delete(scope)
  }

  /**
   * Asks for a token as a challenge says: distribution-spec, "Token authentication"; where the scope is empty, for one that
   * only says who we are. Our credentials go along, so the realm must be one that the upstream may send us to.
   * @throws UpstreamFailure `refused` where it is not; what the token service answers otherwise.
   */
  async ask(scope: string, offer: Offer): Promise<string> {
    const asking = this.#asking.get(scope) ?? this.#fetch(scope, offer).finally(() => this.#asking.delete(scope))
    this.#asking.set(scope, asking)
    return await asking
  }

  async #fetch(scope: string, { parameters }: Offer): Promise<string> {
    const realm = URL.parse(parameters.get('realm') ?? '')
    if (realm === null || !isTrusted(this.#trust, realm, 'token')) {
      const named = (parameters.get('realm') ?? 'nothing').slice(0, 200)
      throw new UpstreamFailure('refused', `${this.#trust.upstream.host} wants tokens fetched from ${named}`)
    }
    const url = new URL(realm)
    const service = parameters.get('service')
    if (service !== undefined) url.searchParams.set('service', service)
    // What we ask for, not what the challenge says: nobody widens what our credentials are used for.
    if (scope !== '') url.searchParams.set('scope', scope)
    const headers: Record<string, string> = { Accept: 'application/json' }
    if (this.#credentials !== undefined) headers['Authorization'] = basic(this.#credentials)
    // By a time of its own: those who share it come and go.
    const { answer, body } = await within(url.host, ASK_MS, async signal => {
      const given = await this.#transport.send('GET', url, { headers, signal })
      return { answer: given, body: await readText(given.body, MAX_BYTES, url.host) }
    })
    const failure = failureOf(url.host, answer.statusCode, headerOf(answer.headers['retry-after']))
    if (failure !== undefined) throw failure
    const held = heldBy(body, url.host)
    this.#held.set(scope, held)
    for (const [name, { until }] of this.#held) {
      if (until <= Date.now() || this.#held.size > MOST_TOKENS) this.#held.delete(name)
    }
    return held.token
  }
}

/** The value of a Basic `Authorization`: RFC 7617. */
export function basic({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`
}

/** One value of a header that should come once. */
export function headerOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.[0]
}

function heldBy(body: string, host: string): Held {
  const asked = Date.now()
  let json: unknown
  try {
    json = JSON.parse(body)
  } catch (cause) {
    throw new UpstreamFailure('failed', `${host} answered no JSON where a token was asked for`, { cause })
  }
  const { token, access_token: other, expires_in: expires } = (json ?? {}) as Readonly<Record<string, unknown>>
  const found = typeof token === 'string' ? token : other
  if (typeof found !== 'string' || !/^[\x21-\x7e]+$/.test(found)) {
    throw new UpstreamFailure('failed', `${host} answered without a token`)
  }
  const seconds = typeof expires === 'number' && expires > 0 ? expires : USUAL_SECONDS
  return { token: found, until: asked + Math.max(seconds * 1000 - EARLY_MS, 1_000) }
}
