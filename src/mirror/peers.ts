import { createHmac, timingSafeEqual } from 'node:crypto'
import { Agent, request } from 'undici'
import type { Readable } from 'node:stream'
import { discard, readText } from './bodies.ts'
import { type FailureKind, UpstreamFailure } from './upstream-failure.ts'

/** Under which path processes give each other what they fetch, before the fetch's id. */
export const FETCH_PATH = '/internal/fetches/'
export const SIGNATURE_HEADER = 'berth-signature'
export const SIZE_HEADER = 'berth-blob-size'

const CONNECT_MS = 3_000
/** The owner may itself be waiting for the upstream, or for its turn. */
const HEADERS_MS = 90_000
const BODY_IDLE_MS = 60_000
const DOCUMENT_MAX_BYTES = 16_384
/** How far the clocks of two machines may be apart; a signature that was seen on the wire is good for as long, and for its fetch. */
const SIGNED_FOR_MS = 5 * 60_000

/** What came of asking the owner of a fetch for its bytes. */
export type PeerAnswer =
  /** They come. */
  | { readonly kind: 'bytes'; readonly body: Readable; readonly size: number }
  /** The fetch has failed, for the owner and whoever follows it. */
  | { readonly kind: 'failed'; readonly failure: OwnersFailure }
  /** It does not fetch this (any more). */
  | { readonly kind: 'gone' }
  /** Nobody listens there. */
  | { readonly kind: 'dead' }
  /** It cannot be told. */
  | { readonly kind: 'silent' }

/** A fetch of another process. */
export interface Followed {
  readonly id: string
  readonly key: string
  readonly address: string
}

/** Asks other processes for what they fetch. */
export class Peers {
  readonly #agent = new Agent({
    connect: { timeout: CONNECT_MS },
    headersTimeout: HEADERS_MS,
    bodyTimeout: BODY_IDLE_MS,
  })

  /** Bytes of a fetch from `start` on, of its owner at `address`. @throws the signal's reason */
  async open({ id, key, address }: Followed, start: number, signal: AbortSignal): Promise<PeerAnswer> {
    const url = new URL(`${FETCH_PATH}${id}?from=${start}`, address)
    try {
      const headers = { [SIGNATURE_HEADER]: sign(key, id, Date.now()) }
      const answer = await request(url, { dispatcher: this.#agent, headers, signal })
      const { statusCode, body } = answer
      const size = Number(answer.headers[SIZE_HEADER])
      if (statusCode === 200 && Number.isSafeInteger(size)) return { kind: 'bytes', body, size }
      if (statusCode === 424) return { kind: 'failed', failure: await readFailure(body, url.host) }
      discard(body)
      return { kind: statusCode === 404 ? 'gone' : 'silent' }
    } catch (error) {
      signal.throwIfAborted()
      const code = error instanceof Error && 'code' in error ? error.code : undefined
      return { kind: code === 'ECONNREFUSED' ? 'dead' : 'silent' }
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }
}

/** Why a fetch failed, as processes tell each other. */
export interface ToldFailure {
  readonly kind: FailureKind
  readonly message: string
  readonly retryAfter?: string
}

/** A fetch has failed for the process that did it; whoever followed it need not try again. */
export class OwnersFailure extends UpstreamFailure {}

async function readFailure(body: Readable, host: string): Promise<OwnersFailure> {
  const { kind, message, retryAfter } = JSON.parse(await readText(body, DOCUMENT_MAX_BYTES, host)) as ToldFailure
  return new OwnersFailure(kind, message, retryAfter === undefined ? {} : { retryAfter })
}

/** The right to the bytes of one fetch for a while, as whoever can read the fetch's row can make it: HMAC-SHA256, RFC 2104. */
export function sign(key: string, id: string, at: number): string {
  return `${at}.${macOf(key, id, at).toString('hex')}`
}

/** Whether a signature is of this fetch and was made just now, in a time that tells nothing about the right one. */
export function isSigned(key: string, id: string, signature: string, now: number): boolean {
  const [, at = '', mac = ''] = /^(\d{1,15})\.([0-9a-f]{64})$/.exec(signature) ?? []
  if (mac === '' || Math.abs(now - Number(at)) > SIGNED_FOR_MS) return false
  return timingSafeEqual(Buffer.from(mac, 'hex'), macOf(key, id, Number(at)))
}

function macOf(key: string, id: string, at: number): Buffer {
  return createHmac('sha256', Buffer.from(key, 'hex')).update(`fetch\n${id}\n${at}`).digest()
}
