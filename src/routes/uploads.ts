import type Router from '@koa/router'
import type { Context } from 'koa'
import { isDigestAlgorithm, parseDigest, tryParseDigest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { type RepositoryName, tryParseName } from '../oci/name.ts'
import { parseContentRange } from '../oci/range.ts'
import type { Registry } from '../registry/registry.ts'
import type { UploadBody, UploadTarget } from '../registry/uploads.ts'
import { callerOf, clientGone, empty, nameOf, paramOf, queryValue } from './params.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Upload sessions: distribution-spec, "Pushing blobs". */
export function uploadRoutes(router: Router, registry: Registry): void {
  router.post('/v2/*name/blobs/uploads/', async ctx => await startUpload(ctx, registry))
  router.post('/v2/*name/blobs/uploads', async ctx => await startUpload(ctx, registry))

  router.get('/v2/*name/blobs/uploads/:id', async ctx => {
    const target = targetOf(ctx)
    present(ctx, target, await registry.uploadStatus(target))
    empty(ctx, 204)
  })

  router.patch('/v2/*name/blobs/uploads/:id', async ctx => {
    const target = targetOf(ctx)
    present(ctx, target, await registry.appendUpload(target, bodyOf(ctx)))
    empty(ctx, 202)
  })

  router.put('/v2/*name/blobs/uploads/:id', async ctx => {
    const target = targetOf(ctx)
    const digest = parseDigest(queryValue(ctx, 'digest') ?? '')
    await registry.finishUpload(target, digest, hasBody(ctx) ? bodyOf(ctx) : undefined)
    created(ctx, target.name, digest)
  })

  router.delete('/v2/*name/blobs/uploads/:id', async ctx => {
    await registry.cancelUpload(targetOf(ctx))
    empty(ctx, 204)
  })
}

async function startUpload(ctx: Context, registry: Registry): Promise<void> {
  const name = nameOf(ctx)
  const caller = callerOf(ctx)
  const mount = tryParseDigest(queryValue(ctx, 'mount') ?? '')
  if (mount !== undefined) {
    const asked = queryValue(ctx, 'from')
    const from = asked === undefined ? undefined : tryParseName(asked)
    // A source that cannot exist is no mount and no error: the client gets a session to upload to.
    if ((asked === undefined || from !== undefined) && (await registry.mountBlob({ name, digest: mount, from }))) {
      created(ctx, name, mount)
      return
    }
  }
  const algorithm = queryValue(ctx, 'digest-algorithm')
  if (algorithm !== undefined && !isDigestAlgorithm(algorithm)) {
    throw new RegistryError('DIGEST_INVALID', {
      message: 'supported digest algorithms are sha256 and sha512',
    })
  }
  const whole = queryValue(ctx, 'digest')
  if (whole !== undefined && mount === undefined) {
    const digest = parseDigest(whole)
    const id = await registry.startUpload(name, caller, digest.startsWith('sha512:') ? 'sha512' : 'sha256')
    await registry.finishUpload({ name, id }, digest, bodyOf(ctx))
    created(ctx, name, digest)
    return
  }
  const target = { name, id: await registry.startUpload(name, caller, algorithm) }
  present(ctx, target, 0)
  empty(ctx, 202)
}

function targetOf(ctx: Context): UploadTarget {
  const name = nameOf(ctx)
  const id = paramOf(ctx, 'id')
  if (!UUID.test(id)) throw new RegistryError('BLOB_UPLOAD_UNKNOWN', { detail: { upload: id.slice(0, 100) } })
  return { name, id }
}

function hasBody(ctx: Context): boolean {
  const length = ctx.get('Content-Length')
  return ctx.get('Content-Range') !== '' || ctx.get('Transfer-Encoding') !== '' || (length !== '' && length !== '0')
}

/** The chunk a request carries. @throws RegistryError BLOB_UPLOAD_INVALID, SIZE_INVALID. */
function bodyOf(ctx: Context): UploadBody {
  const header = ctx.get('Content-Range')
  const signal = clientGone(ctx)
  if (header === '') return { stream: ctx.req, start: undefined, signal }
  const range = parseContentRange(header)
  const length = ctx.get('Content-Length')
  if (length !== '' && Number(length) !== range.end - range.start + 1) {
    throw new RegistryError('SIZE_INVALID', {
      detail: { contentRange: header, contentLength: length },
    })
  }
  return { stream: ctx.req, start: range.start, signal }
}

function present(ctx: Context, target: UploadTarget, offset: number): void {
  ctx.set({
    Location: `/v2/${target.name}/blobs/uploads/${target.id}`,
    Range: `0-${Math.max(offset - 1, 0)}`,
    'Docker-Upload-UUID': target.id,
  })
}

function created(ctx: Context, name: RepositoryName, digest: string): void {
  ctx.set({ Location: `/v2/${name}/blobs/${digest}`, 'Docker-Content-Digest': digest })
  empty(ctx, 201)
}
