import type { Credentials } from './challenge.ts'
import type { Action, Identity } from './identity.ts'
import type { AccessEntry, Scope } from './scope.ts'
import type { UploadCapability } from './tokens.ts'

/** Where a request comes from, for the audit and for limits on guessing. */
export interface RequestSource {
  readonly client: string
  readonly requestId: string
}

/** What the bearer of a request may do, once its credentials were found right. */
export interface Access {
  readonly identity: Identity
  /** Whether a token or password was shown: only then a refusal says that it is invalid or too narrow. */
  readonly shown: boolean
  may(action: Action, name: string): boolean
  /** The repository's id that the shown token is bound to, where it is. */
  repositoryId(name: string): number | undefined
  /** Whether the shown token may list repositories. */
  readonly mayList: boolean
}

/** Regular expressions (POSIX) of repository names: a name is visible when each list has one that matches it. */
export type VisibleNames = readonly (readonly string[])[]

/** An access token as the token endpoint answers it. Times in seconds. */
export interface IssuedToken {
  readonly token: string
  readonly expiresIn: number
  readonly issuedAt: Date
  readonly granted: readonly AccessEntry[]
  readonly refreshToken?: string
}

/** Who a login proved to be. */
export interface Proof {
  readonly identity: Identity
  /** How long a refresh token may live, in milliseconds, where this kind of login may have one. */
  readonly refreshMs?: number
}

/**
 * Decides who asks and what they may. One implementation (`access/authority.ts`) works on rows; routes and middleware
 * know only this.
 */
export interface Authority {
  /** The fixed name clients ask tokens for. */
  readonly service: string
  /**
   * What the credentials of a registry request allow: an access token of ours or of a trusted issuer, or a password.
   * @throws RegistryError UNAUTHORIZED for wrong ones, TOOMANYREQUESTS for too many wrong ones.
   */
  access(credentials: Credentials, source: RequestSource): Promise<Access>
  /** The same where it is known at once, with nothing to ask or to judge: what most requests show was shown before. */
  recall(credentials: Credentials): Access | undefined
  /**
   * The identity a name and password (or token in its place) prove; {@link ANONYMOUS} where nothing is shown.
   * @throws RegistryError UNAUTHORIZED, TOOMANYREQUESTS.
   */
  login(credentials: Credentials, source: RequestSource): Promise<Proof>
  /** The identity of a refresh token. @throws RegistryError UNAUTHORIZED, TOOMANYREQUESTS. */
  refresh(refreshToken: string, source: RequestSource): Promise<Identity>
  /**
   * A token for what is both asked for and allowed, possibly nothing; with `refreshMs` also a refresh token that lives
   * for so many milliseconds. @throws RegistryError with 400 where so many scopes make a token too long to be sent.
   */
  issue(
    identity: Identity,
    scopes: readonly Scope[],
    refreshMs: number | undefined,
    source: RequestSource,
  ): Promise<IssuedToken>
  /** Whether an identity itself, whatever token it shows, may do an action: for the source of a mount. */
  allows(identity: Identity, action: Action, name: string): Promise<boolean>
  /** The names an identity may pull, for lists and mounts without a source. */
  visibleNames(identity: Identity): Promise<VisibleNames>
  /**
   * A capability to go on with an upload, to stand in its Location. `expiresAt` is when the one before it ends, in seconds
   * since 1970: the next ends no later where nobody here can say whether its bearer may still push, nor ever later than what
   * began the upload.
   */
  grantUpload(capability: UploadCapability & { readonly expiresAt?: number }): Promise<string>
  /** What the capability in a Location allows, where it is good for this upload and its bearer may still push. */
  findUpload(
    token: string,
    upload: string,
    repository: string,
  ): Promise<(UploadCapability & { readonly expiresAt: number }) | undefined>
  /** The public keys, as RFC 7517 section 5 writes them. */
  keySet(): Promise<{ readonly keys: readonly object[] }>
}
