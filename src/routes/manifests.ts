import type Router from '@koa/router'
import { RegistryError } from '../oci/errors.ts'
import { parseReference, parseTag } from '../oci/name.ts'
import { noneMatches } from '../oci/precondition.ts'
import { warningHeaders } from '../oci/warning.ts'
import type { Registry } from '../registry/registry.ts'
import type { Gate } from '../middleware/gate.ts'
import { callerOf, empty, nameOf, paramOf, queryValues, readBody } from './params.ts'

const MAX_TAGS = 100

/** Manifests: distribution-spec, "Pulling manifests", "Pushing Manifests", "Deleting tags", "Deleting Manifests". */
export function manifestRoutes(
  router: Router,
  registry: Registry,
  gate: Gate,
  options: { readonly maxBytes: number },
): void {
  router.get('/v2/*name/manifests/:reference', gate.repository('pull'), async ctx => {
    const name = nameOf(ctx)
    const reference = parseReference(paramOf(ctx, 'reference'))
    const caller = callerOf(ctx)
    const manifest = await registry.statManifest(name, reference, caller)
    registry.countPull(manifest, reference, ctx.method, caller)
    ctx.set({ 'Docker-Content-Digest': manifest.digest, ETag: `"${manifest.digest}"` })
    if (manifest.warnings !== undefined) ctx.set('Warning', warningHeaders(manifest.warnings))
    if (noneMatches(ctx.get('If-None-Match'), manifest.digest)) {
      empty(ctx, 304)
      return
    }
    ctx.status = 200
    ctx.set({ 'Content-Type': manifest.mediaType, 'Content-Length': String(manifest.size) })
    if (ctx.method === 'HEAD') {
      ctx.respond = false
      ctx.res.end()
      return
    }
    const bytes = await registry.readManifest(manifest)
    ctx.body = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    ctx.set('Content-Type', manifest.mediaType)
  })

  router.put('/v2/*name/manifests/:reference', gate.repository('push'), async ctx => {
    const name = nameOf(ctx)
    const reference = parseReference(paramOf(ctx, 'reference'))
    const tags = queryValues(ctx, 'tag')
    if (tags.length > MAX_TAGS) {
      throw new RegistryError('TAG_INVALID', {
        status: 414,
        message: `at most ${MAX_TAGS} tags in one push`,
      })
    }
    const pushed = await registry.pushManifest(
      {
        name,
        reference,
        tags: tags.map(parseTag),
        contentType: ctx.get('Content-Type') || undefined,
        bytes: await readBody(ctx, options.maxBytes, 'a manifest'),
      },
      callerOf(ctx),
    )
    ctx.set({
      Location: `/v2/${name}/manifests/${pushed.digest}`,
      'Docker-Content-Digest': pushed.digest,
    })
    if (pushed.subject !== undefined) ctx.set('OCI-Subject', pushed.subject)
    if (tags.length > 0) ctx.set('OCI-Tag', pushed.tags.join(', '))
    if (pushed.warnings.length > 0) ctx.set('Warning', warningHeaders(pushed.warnings))
    empty(ctx, 201)
  })

  router.delete('/v2/*name/manifests/:reference', gate.repository('delete'), async ctx => {
    await registry.deleteManifest(nameOf(ctx), parseReference(paramOf(ctx, 'reference')), callerOf(ctx))
    empty(ctx, 202)
  })
}
