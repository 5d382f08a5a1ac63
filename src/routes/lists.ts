import type Router from '@koa/router'
import type { Context } from 'koa'
import type { Authority } from '../auth/authority.ts'
import { parseDigest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { nextLink, parsePage } from '../oci/pagination.ts'
import { isStorable } from '../oci/text.ts'
import { warningHeaders } from '../oci/warning.ts'
import type { Gate } from '../middleware/gate.ts'
import type { Registry } from '../registry/registry.ts'
import { callerOf, json, nameOf, paramOf, queryValues, listedTo } from './params.ts'

const CATALOG_MAX = 1000
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json'

/** Lists: distribution-spec, "Listing Tags" and "Listing Referrers", and the catalog that clients use. */
export function listRoutes(
  router: Router,
  registry: Registry,
  gate: Gate,
  authority: Authority | undefined,
  options: { readonly maxTags: number },
): void {
  router.get('/v2/*name/tags/list', gate.repository('pull'), async ctx => {
    const name = nameOf(ctx)
    const { n = options.maxTags, last = '' } = parsePage(ctx.query, options.maxTags)
    const page = await registry.listTags(name, last, n, callerOf(ctx))
    link(ctx, `/v2/${name}/tags/list`, { n: String(n) }, page.next)
    warn(ctx, page.warnings)
    json(ctx, { name, tags: page.items })
  })

  router.get('/v2/_catalog', gate.catalog, async ctx => {
    const { n = CATALOG_MAX, last = '' } = parsePage(ctx.query, CATALOG_MAX)
    const page = await registry.listCatalog(await listedTo(ctx, authority), last, n)
    link(ctx, '/v2/_catalog', { n: String(n) }, page.next)
    json(ctx, { repositories: page.items })
  })

  router.get('/v2/*name/referrers/:digest', gate.repository('pull'), async ctx => {
    const name = nameOf(ctx)
    const digest = parseDigest(paramOf(ctx, 'digest'))
    // A media type holds no space, so that is a plus that was not percent-encoded.
    const artifactTypes = queryValues(ctx, 'artifactType')
      .filter(type => type !== '')
      .map(type => type.replaceAll(' ', '+'))
    if (!artifactTypes.every(isStorable)) {
      throw new RegistryError('UNSUPPORTED', { status: 400, message: 'an artifactType must not contain NUL' })
    }
    const { n, last = '' } = parsePage(ctx.query, CATALOG_MAX)
    const page = await registry.listReferrers(name, digest, { artifactTypes, last, limit: n }, callerOf(ctx))
    const params = { ...(n === undefined ? {} : { n: String(n) }), artifactType: artifactTypes }
    link(ctx, `/v2/${name}/referrers/${digest}`, params, page.next)
    warn(ctx, page.warnings)
    if (artifactTypes.length > 0) ctx.set('OCI-Filters-Applied', 'artifactType')
    json(ctx, { schemaVersion: 2, mediaType: INDEX_TYPE, manifests: page.items }, INDEX_TYPE)
  })
}

/** Sets the Link to the next page, which has the parameters of this one, also those that are not ours (`ns`). */
function link(
  ctx: Context,
  path: string,
  params: Readonly<Record<string, string | readonly string[]>>,
  next: string | undefined,
): void {
  if (next !== undefined) ctx.set('Link', nextLink(path, { ...ctx.query, ...params, last: next }))
}

function warn(ctx: Context, warnings: readonly string[] = []): void {
  if (warnings.length > 0) ctx.set('Warning', warningHeaders(warnings))
}
