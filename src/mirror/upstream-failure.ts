/**
 * Why an upstream gave nothing: `absent` (it does not have it), `denied` (our credentials are wrong or missing), `limited`
 * (too many requests), `failed` (broken, out of reach or too slow), `refused` (it does not take what we ask, or leads where
 * we do not follow).
 */
export type FailureKind = 'absent' | 'denied' | 'limited' | 'failed' | 'refused'

/** An upstream did not give what it was asked for. The message names the upstream and its answer, never credentials. */
export class UpstreamFailure extends Error {
  override readonly name = 'UpstreamFailure'
  readonly kind: FailureKind
  /** The upstream's own `Retry-After`, where it sent one. */
  readonly retryAfter: string | undefined

  constructor(
    kind: FailureKind,
    message: string,
    more: { readonly retryAfter?: string; readonly cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.kind = kind
    this.retryAfter = more.retryAfter
  }
}

/** An upstream answered with another part of a blob than it was asked for: it has to be asked for the whole. */
export class WrongRange extends UpstreamFailure {
  constructor(message: string) {
    super('refused', message)
  }
}

const KINDS: Readonly<Record<number, FailureKind>> = {
  401: 'denied',
  403: 'denied',
  404: 'absent',
  408: 'failed',
  429: 'limited',
}

/** What the status of an answer means, or undefined where it is an answer to use. */
export function failureOf(host: string, status: number, retryAfter?: string): UpstreamFailure | undefined {
  if (status < 400) return undefined
  const kind = KINDS[status] ?? (status < 500 ? 'refused' : 'failed')
  return new UpstreamFailure(kind, `${host} answered ${status}`, retryAfter === undefined ? {} : { retryAfter })
}
