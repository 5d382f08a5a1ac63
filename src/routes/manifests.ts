import type Router from '@koa/router'
import type { Context } from 'koa'
import { RegistryError } from '../oci/errors.ts'
import { parseReference, parseTag } from '../oci/name.ts'
import { noneMatches } from '../oci/precondition.ts'
import { warningHeaders } from '../oci/warning.ts'
import type { Registry } from '../registry/registry.ts'
import { callerOf, empty, nameOf, paramOf, queryValues } from './params.ts'

const MAX_TAGS = 100

/** Manifests: distribution-spec, "Pulling manifests", "Pushing Manifests", "Deleting tags", "Deleting Manifests". */
export function manifestRoutes(router: Router, registry: Registry, options: { readonly maxBytes: number }): void {
  router.get('/v2/*name/manifests/:reference', async ctx => {
    const name = nameOf(ctx)
    const manifest = await registry.statManifest(name, parseReference(paramOf(ctx, 'reference')), callerOf(ctx))
    ctx.set({ 'Docker-Content-Digest': manifest.digest, ETag: `"${manifest.digest}"` })
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

  router.put('/v2/*name/manifests/:reference', async ctx => {
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
        bytes: await readBody(ctx, options.maxBytes),
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

  router.delete('/v2/*name/manifests/:reference', async ctx => {
    await registry.deleteManifest(nameOf(ctx), parseReference(paramOf(ctx, 'reference')), callerOf(ctx))
    empty(ctx, 202)
  })
}

/** The whole request body. @throws RegistryError MANIFEST_INVALID with 413 as soon as it is too large. */
async function readBody(ctx: Context, maxBytes: number): Promise<Uint8Array> {
  const tooLarge = () =>
    new RegistryError('MANIFEST_INVALID', {
      status: 413,
      message: `a manifest may have at most ${maxBytes} bytes`,
    })
  if (Number(ctx.get('Content-Length')) > maxBytes) throw tooLarge()
  const chunks: Buffer[] = []
  let size = 0
  // Leaving the loop must not destroy the request: the answer goes over the same socket.
  for await (const chunk of ctx.req.iterator({ destroyOnReturn: false })) {
    const bytes = chunk as Buffer
    size += bytes.byteLength
    if (size > maxBytes) throw tooLarge()
    chunks.push(bytes)
  }
  return Buffer.concat(chunks, size)
}
