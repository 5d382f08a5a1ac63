import { randomUUID } from 'node:crypto'
import type { Access, Authority, IssuedToken, Proof, RequestSource, VisibleNames } from '../auth/authority.ts'
import type { Credentials } from '../auth/challenge.ts'
import { ANONYMOUS, type Action, type Identity, type PatternActions, type Provenance } from '../auth/identity.ts'
import { decide } from '../auth/policy.ts'
import { type AccessEntry, type Scope, repositoryActions } from '../auth/scope.ts'
import { hashSecret, makeSecret, secretKind } from '../auth/secrets.ts'
import * as tokens from '../auth/tokens.ts'
import { findRefreshToken, insertRefreshToken } from '../metadata/refresh-tokens.ts'
import type { Database } from '../metadata/database.ts'
import { findPrincipals } from '../metadata/principals.ts'
import { repositoryIds } from '../metadata/repositories.ts'
import { RegistryError } from '../oci/errors.ts'
import { tryParseName } from '../oci/name.ts'
import type { AuditTrail } from './audit-trail.ts'
import { BearerTokens, type ForeignTokens } from './bearer-tokens.ts'
import { explain, grantsFor, visibleTo } from './grants.ts'
import { type GuessLimit, refreshGuess } from './guess-limit.ts'
import type { Keys } from './keys.ts'
import type { Login } from './login.ts'
import type { PrincipalStates } from './principal-states.ts'
import { grantedAccess, tokenAccess } from './request-access.ts'
import type { UseTimes } from './use-times.ts'

/** What the authority is made of. Durations in milliseconds. */
export interface AuthorityOptions {
  readonly db: Database
  readonly keys: Keys
  readonly states: PrincipalStates
  readonly login: Login
  readonly guesses: GuessLimit
  readonly audit: AuditTrail
  readonly useTimes: UseTimes
  readonly foreign: ForeignTokens
  /** What tokens call us, as audience and as issuer. */
  readonly service: string
  readonly tokenLifetimeMs: number
  readonly uploadExpiryMs: number
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** The authority that works on rows. Holds nothing another process needs. */
export class RowAuthority implements Authority {
  readonly service: string
  readonly #options: AuthorityOptions
  readonly #bearers: BearerTokens

  constructor(options: AuthorityOptions) {
    this.#options = options
    this.#bearers = new BearerTokens(options)
    this.service = options.service
  }

  async access(credentials: Credentials, source: RequestSource): Promise<Access> {
    switch (credentials.kind) {
      case 'none':
        return tokenAccess(ANONYMOUS, [], false)
      case 'bearer':
        return await this.#bearers.access(credentials.token)
      case 'basic': {
        const { identity } = await this.login(credentials, source)
        return grantedAccess(identity, await grantsFor(this.#options.db, identity))
      }
      case 'unreadable':
        throw new RegistryError('UNAUTHORIZED', { message: 'the Authorization header cannot be read' })
    }
  }

  recall(credentials: Credentials): Access | undefined {
    return credentials.kind === 'bearer' ? this.#bearers.recall(credentials.token) : undefined
  }

  async login(credentials: Credentials, source: RequestSource): Promise<Proof> {
    if (credentials.kind === 'none') return { identity: ANONYMOUS }
    if (credentials.kind !== 'basic') {
      throw new RegistryError('UNAUTHORIZED', { message: 'show a name and a password' })
    }
    const { login, states, useTimes, audit } = this.#options
    const proven = await login.prove(credentials, source)
    const { identity } = proven
    const { principalId } = identity
    if (principalId !== undefined) {
      // It may have been disabled between the look at its row and now.
      if (!(await states.isCurrentNow(identity))) {
        const detail = { reason: 'changed or disabled a moment ago' }
        audit.add({ kind: 'login', outcome: 'refused', ...actor(identity), ...where(source), detail })
        throw new RegistryError('UNAUTHORIZED', { message: `${identity.name} was changed or disabled a moment ago` })
      }
      useTimes.used(principalId, proven.tokenId)
    }
    return proven
  }

  async refresh(refreshToken: string, source: RequestSource): Promise<Identity> {
    const judge = async (): Promise<Identity | undefined> => await this.#sessionOf(refreshToken, source)
    const identity = await this.#options.guesses.judge(
      refreshGuess(refreshToken, source.client),
      judge,
      session => session !== undefined,
    )
    if (identity !== undefined) return identity
    throw new RegistryError('UNAUTHORIZED', {
      message: 'the refresh token is unknown, expired or revoked: log in again',
    })
  }

  async #sessionOf(refreshToken: string, source: RequestSource): Promise<Identity | undefined> {
    const { db, audit } = this.#options
    // What is none by its form costs neither a look-up nor a record.
    if (secretKind(refreshToken) !== 'refresh') return undefined
    const row = await findRefreshToken(db, hashSecret(refreshToken))
    const [principal] = row === undefined ? [] : await findPrincipals(db, [row.principal_id])
    if (row === undefined || principal?.active !== true || principal.epoch !== row.epoch) {
      const detail = { reason: 'refresh token unknown, expired or revoked' }
      audit.add({ kind: 'refresh', outcome: 'refused', actor: principal?.name ?? '', ...where(source), detail })
      return undefined
    }
    return {
      kind: principal.kind,
      name: principal.name,
      principalId: principal.id,
      epoch: principal.epoch,
      endsAt: row.expires_at,
      ...(row.scopes === null ? {} : { scopes: row.scopes as readonly PatternActions[] }),
      ...(row.provenance === null ? {} : { provenance: row.provenance as Provenance }),
    }
  }

  async issue(
    identity: Identity,
    scopes: readonly Scope[],
    refreshMs: number | undefined,
    source: RequestSource,
  ): Promise<IssuedToken> {
    const { db, audit, keys, now, tokenLifetimeMs } = this.#options
    const issuedAt = Math.floor(now() / 1000)
    const { endsAt } = identity
    const left = endsAt === undefined ? Infinity : tokens.secondsOf(endsAt) - issuedAt
    if (left <= 0)
      throw new RegistryError('UNAUTHORIZED', { message: `what ${identity.name} logged in with has expired` })
    const lifetime = Math.min(Math.floor(tokenLifetimeMs / 1000), left)
    const granted = await this.#granted(identity, scopes)
    const frame = { issuer: this.service, audience: this.service, issuedAt, expiresAt: issuedAt + lifetime }
    const id = randomUUID()
    const token = tokens.signToken(await keys.signer(), frame, { identity, access: granted, id })
    if (token.length > tokens.MAX_TOKEN_LENGTH) throw tooManyScopes()
    if (identity.kind !== 'anonymous') {
      const detail = { token: id, granted: granted.map(({ name, actions }) => ({ name, actions })) }
      audit.add({ kind: 'token', outcome: 'ok', ...actor(identity), ...where(source), detail })
    }
    const answer = { token, expiresIn: lifetime, issuedAt: new Date(issuedAt * 1000), granted }
    if (refreshMs === undefined || identity.principalId === undefined || identity.epoch === undefined) return answer
    const secret = makeSecret('refresh')
    const { principalId, epoch, scopes: narrowed, provenance } = identity
    await db.transaction(tx =>
      insertRefreshToken(tx, {
        hash: secret.hash,
        principalId,
        epoch,
        scopes: narrowed,
        provenance,
        lifetimeMs: refreshMs,
      }),
    )
    return { ...answer, refreshToken: secret.text }
  }

  async allows(identity: Identity, action: Action, name: string): Promise<boolean> {
    if (identity.kind === 'foreign') return false
    return (await explain(this.#options.db, identity, action, name)).allowed
  }

  async visibleNames(identity: Identity): Promise<VisibleNames> {
    return await visibleTo(this.#options.db, identity)
  }

  async grantUpload({
    expiresAt: former,
    ...capability
  }: tokens.UploadCapability & { readonly expiresAt?: number }): Promise<string> {
    const { keys, now, uploadExpiryMs } = this.#options
    const issuedAt = Math.floor(now() / 1000)
    const longest = issuedAt + Math.ceil(uploadExpiryMs / 1000)
    const bound = capability.principalId === undefined ? former : capability.endsAt
    const expiresAt = Math.min(longest, bound ?? longest)
    const frame = { issuer: this.service, audience: this.service, issuedAt, expiresAt }
    return tokens.signCapability(await keys.signer(), frame, capability)
  }

  async findUpload(token: string, upload: string, repository: string): ReturnType<Authority['findUpload']> {
    const { keys, states } = this.#options
    try {
      const capability = await tokens.verifyCapability(token, this.#expected(), kid => keys.find(kid))
      if (capability.upload !== upload || capability.repository !== repository) return undefined
      if (!(await states.isCurrent(capability))) return undefined
      const { principalId } = capability
      // It outlives the token that it began with, which says what was granted then.
      const mayPush = principalId === undefined || (await this.allows(bearerOf(principalId), 'push', repository))
      return mayPush ? capability : undefined
    } catch (error) {
      if (error instanceof tokens.TokenRefused) return undefined
      throw error
    }
  }

  async keySet(): Promise<{ readonly keys: readonly object[] }> {
    return { keys: await this.#options.keys.published() }
  }

  #expected(): { issuer: string; audience: string; now: number } {
    return { issuer: this.service, audience: this.service, now: Math.floor(this.#options.now() / 1000) }
  }

  async #granted(identity: Identity, scopes: readonly Scope[]): Promise<AccessEntry[]> {
    const { db } = this.#options
    const wanted = scopes.filter(scope => scope.type === 'repository' && tryParseName(scope.name) !== undefined)
    const ids = await repositoryIds(
      db,
      wanted.map(scope => scope.name),
    )
    const grants = wanted.length === 0 ? [] : await grantsFor(db, identity)
    const entries: AccessEntry[] = []
    for (const scope of wanted) {
      const actions = repositoryActions(scope).filter(action => decide(identity, grants, action, scope.name).allowed)
      if (actions.length === 0) continue
      const repository = ids.get(scope.name)
      const bound = repository === undefined ? {} : { repository }
      entries.push({ type: 'repository', name: scope.name, actions, ...bound })
    }
    // As in Distribution the catalog has this one action.
    const list = scopes.some(({ type, name, actions }) => {
      return type === 'registry' && name === 'catalog' && actions.includes('*')
    })
    return list ? [...entries, { type: 'registry', name: 'catalog', actions: ['*'] }] : entries
  }
}

/** Whoever has a capability, as far as grants go: of its name and kind only words are made. */
function bearerOf(principalId: number): Identity {
  return { kind: 'user', name: '', principalId }
}

function actor(identity: Identity): { actor: string; actorId?: number } {
  const { name, principalId } = identity
  return principalId === undefined ? { actor: name } : { actor: name, actorId: principalId }
}

function where(source: RequestSource): { client: string; requestId: string } {
  return { client: source.client, requestId: source.requestId }
}

/** A token for all of them could not be sent: RFC 6749 section 5.2. */
function tooManyScopes(): RegistryError {
  return new RegistryError('UNSUPPORTED', {
    status: 400,
    message: 'a token for so many repositories is too long: ask for fewer scopes at once',
    members: { error: 'invalid_scope' },
  })
}
