import { type Digest, tryParseDigest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { OCI_INDEX } from '../oci/media-types.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Caller } from '../registry/context.ts'
import type { Page, Referrer } from '../registry/lists.ts'
import type { Registry } from '../registry/registry.ts'
import type { Mirror } from './mirror.ts'
import { refusalOf } from './refusals.ts'
import { UpstreamFailure } from './upstream-failure.ts'
import { within } from './within.ts'

const ASK_MS = 30_000
/** Pages of a referrers list that are followed. */
const MOST_PAGES = 50
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/

/**
 * Tags as the upstream lists them now; where it does not answer or is not asked, those that are here, with a warning:
 * distribution-spec, "Listing Tags".
 * @throws RegistryError NAME_UNKNOWN, offline for what is not here; where nothing is here what the upstream's failure means:
 * an empty list would say that there are none.
 */
export async function mirroredTags(
  mirror: Mirror,
  copies: Registry,
  name: RepositoryName,
  last: string,
  limit: number,
  caller: Caller,
): Promise<Page<string>> {
  const repository = mirror.upstreamName(name)
  if (limit === 0) return { items: [] }
  if (mirror.options.offline) return incomplete(await copies.listTags(name, last, limit, caller), offline(mirror))
  const here = async (failure: UpstreamFailure): Promise<Page<string>> => {
    try {
      const page = await copies.listTags(name, last, limit, caller)
      const isKnown = page.items.length > 0 || (await copies.listTags(name, '', 1, caller)).items.length > 0
      if (isKnown) return incomplete(page, failure)
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'NAME_UNKNOWN') throw error
    }
    throw refusalOf(failure, 'NAME_UNKNOWN')
  }
  try {
    const query = new URLSearchParams({ n: String(limit) })
    if (last !== '') query.set('last', last)
    const { json, next } = await asked(mirror, signal =>
      mirror.upstream.document(repository, 'tags/list', query, signal),
    )
    const listed = arrayOf(mirror, json, 'tags').filter(tag => typeof tag === 'string' && TAG.test(tag)) as string[]
    // Some upstreams know neither n nor last: they list everything, in the order they like, or the same page again.
    const knowsLast = next?.has('last') === true
    const after = knowsLast ? listed : listed.toSorted(byBytes).filter(tag => last === '' || byBytes(tag, last) > 0)
    const items = after.slice(0, limit)
    const following = next === undefined ? undefined : (next.get('last') ?? items.at(-1))
    const end = after.length > limit ? items.at(-1) : items.length === 0 && !knowsLast ? undefined : following
    return end === undefined ? { items } : { items, next: end }
  } catch (error) {
    if (!(error instanceof UpstreamFailure) || error.kind === 'absent') throw refusalOf(error, 'NAME_UNKNOWN')
    return await here(error)
  }
}

/** A list of what is here, which need not be all that the upstream has. */
function incomplete<T>(page: Page<T>, { message }: UpstreamFailure): Page<T> {
  return { ...page, warnings: [`this is what is here and may not be all: ${message}`] }
}

function offline({ upstream }: Mirror): UpstreamFailure {
  return new UpstreamFailure('failed', `the mirror is offline and does not ask ${upstream.host}`)
}

/** What a referrers list is asked for. */
export interface ReferrersAsk {
  readonly artifactTypes: readonly string[]
  readonly last: string
  readonly limit: number | undefined
}

/**
 * Referrers as the upstream lists them now, by its API or by the tag it uses in place of one; where it does not answer or
 * is not asked, those that are here, with a warning, and where there are none the failure: an empty list would say that
 * there are none. Offline it is given of a manifest that is here.
 */
export async function mirroredReferrers(
  mirror: Mirror,
  copies: Registry,
  name: RepositoryName,
  subject: Digest,
  ask: ReferrersAsk,
  caller: Caller,
): Promise<Page<Referrer>> {
  const repository = mirror.upstreamName(name)
  if (ask.limit === 0) return { items: [] }
  const here = async (failure: UpstreamFailure): Promise<Page<Referrer>> => {
    const page = await copies.listReferrers(name, subject, ask, caller)
    const isEnd = page.items.length === 0 && ask.last !== ''
    const isSure = isEnd || (mirror.options.offline && (await isHere(copies, name, subject, caller)))
    if (isSure || page.items.length > 0) return incomplete(page, failure)
    throw refusalOf(failure, 'NAME_UNKNOWN')
  }
  if (mirror.options.offline) return await here(offline(mirror))
  try {
    const all = await upstreamReferrers(mirror, repository, subject)
    const found = all
      .filter(({ artifactType }) => ask.artifactTypes.length === 0 || ask.artifactTypes.includes(artifactType ?? ''))
      .filter(({ digest }) => ask.last === '' || digest > ask.last)
      .toSorted((a, b) => byBytes(a.digest, b.digest))
    const items = found.slice(0, ask.limit ?? found.length)
    const end = items.at(-1)
    return items.length < found.length && end !== undefined ? { items, next: end.digest } : { items }
  } catch (error) {
    if (!(error instanceof UpstreamFailure)) throw error
    return await here(error)
  }
}

async function isHere(copies: Registry, name: RepositoryName, digest: Digest, caller: Caller): Promise<boolean> {
  try {
    await copies.statManifest(name, { digest }, caller)
    return true
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'MANIFEST_UNKNOWN') return false
    throw error
  }
}

async function upstreamReferrers(mirror: Mirror, repository: string, subject: Digest): Promise<Referrer[]> {
  const { upstream } = mirror
  try {
    const found: Referrer[] = []
    let query: URLSearchParams | undefined = new URLSearchParams()
    for (let page = 0; query !== undefined && page < MOST_PAGES; page += 1) {
      const asking: URLSearchParams = query
      const { json, next } = await asked(mirror, signal =>
        upstream.document(repository, `referrers/${subject}`, asking, signal),
      )
      found.push(...referrersIn(mirror, json))
      query = next
    }
    return found
  } catch (error) {
    if (!(error instanceof UpstreamFailure) || error.kind !== 'absent') throw error
  }
  try {
    const tag = subject.replace(':', '-')
    const { bytes, mediaType } = await asked(mirror, signal => upstream.manifest(repository, tag, signal))
    return mediaType.startsWith(OCI_INDEX) ? referrersIn(mirror, JSON.parse(bytes.toString('utf8'))) : []
  } catch (error) {
    if (error instanceof UpstreamFailure && error.kind === 'absent') return []
    throw error instanceof SyntaxError ? new UpstreamFailure('failed', `${upstream.host} answered no JSON`) : error
  }
}

async function asked<T>({ health, upstream }: Mirror, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return await health.run(() => within(upstream.host, ASK_MS, ask))
}

function referrersIn(mirror: Mirror, json: unknown): Referrer[] {
  return arrayOf(mirror, json, 'manifests').flatMap(entry => {
    if (typeof entry !== 'object' || entry === null) return []
    const { mediaType, digest, size, artifactType, annotations } = entry as Readonly<Record<string, unknown>>
    const parsed = typeof digest === 'string' ? tryParseDigest(digest) : undefined
    if (parsed === undefined || typeof mediaType !== 'string' || typeof size !== 'number') return []
    return [
      {
        mediaType,
        digest: parsed,
        size,
        ...(typeof artifactType === 'string' ? { artifactType } : {}),
        ...(isTexts(annotations) ? { annotations } : {}),
      },
    ]
  })
}

function isTexts(value: unknown): value is Readonly<Record<string, string>> {
  return typeof value === 'object' && value !== null && Object.values(value).every(text => typeof text === 'string')
}

/** A list in an answer; some servers say null where there is nothing in it. @throws UpstreamFailure where it is none. */
function arrayOf({ upstream }: Mirror, json: unknown, key: string): readonly unknown[] {
  const value = typeof json === 'object' && json !== null ? (json as Readonly<Record<string, unknown>>)[key] : undefined
  if (Array.isArray(value)) return value
  if (value === null) return []
  throw new UpstreamFailure('failed', `${upstream.host} answered without ${key}`)
}

function byBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
