/** The error table of the protocol: distribution-spec, "Error Codes", plus the codes real clients understand. */
interface ErrorRow {
  readonly status: number
  readonly message: string
}

// CONFLICT, INVALID and NOT_FOUND are of the administration's API, not of the distribution-spec.
/** One row per code a client can ever see. `status` is used unless the thrower names another. */
export const ERROR_CODES = {
  BLOB_UNKNOWN: { status: 404, message: 'blob unknown to registry' },
  BLOB_UPLOAD_INVALID: { status: 400, message: 'blob upload invalid' },
  BLOB_UPLOAD_UNKNOWN: { status: 404, message: 'blob upload unknown to registry' },
  CONFLICT: { status: 409, message: 'the request conflicts with what is there' },
  DENIED: { status: 403, message: 'requested access to the resource is denied' },
  DIGEST_INVALID: { status: 400, message: 'provided digest is not valid or did not match the content' },
  INVALID: { status: 400, message: 'the request is not valid' },
  MANIFEST_BLOB_UNKNOWN: { status: 400, message: 'manifest references a manifest or blob unknown to this repository' },
  MANIFEST_INVALID: { status: 400, message: 'manifest invalid' },
  MANIFEST_UNKNOWN: { status: 404, message: 'manifest unknown' },
  NAME_INVALID: { status: 400, message: 'invalid repository name' },
  NAME_UNKNOWN: { status: 404, message: 'repository name not known to registry' },
  NOT_FOUND: { status: 404, message: 'there is no such thing' },
  PAGINATION_NUMBER_INVALID: { status: 400, message: 'invalid number of results requested' },
  RANGE_INVALID: { status: 416, message: 'requested range not satisfiable' },
  SIZE_INVALID: { status: 400, message: 'provided length did not match content length' },
  TAG_INVALID: { status: 400, message: 'invalid tag name' },
  TOOMANYREQUESTS: { status: 429, message: 'too many requests' },
  UNAUTHORIZED: { status: 401, message: 'authentication required' },
  UNAVAILABLE: { status: 503, message: 'service temporarily unavailable' },
  UNKNOWN: { status: 500, message: 'unknown error' },
  UNSUPPORTED: { status: 405, message: 'the operation is unsupported' },
} as const satisfies Record<string, ErrorRow>

/** A key of {@link ERROR_CODES}. */
export type ErrorCode = keyof typeof ERROR_CODES

/** What one entry of the `errors` array of a response body holds. */
export interface ErrorEntry {
  readonly code: ErrorCode
  readonly message: string
  readonly detail?: unknown
}

/** What a thrower may add to a {@link RegistryError}. */
export interface RegistryErrorOptions {
  /** Replaces the table's message. Shown to the client: never internals. */
  readonly message?: string
  /** Shown to the client as `detail`. */
  readonly detail?: unknown
  /** Replaces the table's status (for example 413 for a manifest that is too large). */
  readonly status?: number
  /** Response headers that belong to this error (`Range`, `Retry-After`, `Allow`). */
  readonly headers?: Readonly<Record<string, string>>
  /** Several entries of one code, one for each thing that is wrong; replaces `message` and `detail`. */
  readonly entries?: readonly { readonly message: string; readonly detail?: unknown }[]
  /** Members of the body beside `errors`, where another standard has its own. */
  readonly members?: Readonly<Record<string, string>>
  /** For the log only. */
  readonly cause?: unknown
}

/** A refusal in the protocol's own words. Rules and parsers throw it, one middleware writes it. */
export class RegistryError extends Error {
  override readonly name = 'RegistryError'
  readonly code: ErrorCode
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly entries: readonly ErrorEntry[]
  readonly members: Readonly<Record<string, string>>

  constructor(code: ErrorCode, options: RegistryErrorOptions = {}) {
    const message = options.message ?? ERROR_CODES[code].message
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.status = options.status ?? ERROR_CODES[code].status
    this.headers = options.headers ?? {}
    this.members = options.members ?? {}
    const entries = options.entries ?? [{ message, detail: options.detail }]
    this.entries = entries.map(entry =>
      entry.detail === undefined
        ? { code, message: entry.message }
        : { code, message: entry.message, detail: entry.detail },
    )
  }
}

/** The body of an error response: distribution-spec, "Error Codes"; `members` stand beside its `errors`. */
export function errorBody(entries: readonly ErrorEntry[], members: Readonly<Record<string, string>> = {}): string {
  return JSON.stringify({ errors: entries, ...members })
}
