import type Router from '@koa/router'
import type { Context } from 'koa'
import type { Authority } from '../auth/authority.ts'
import type { Identity } from '../auth/identity.ts'
import { type UploadCapability, secondsOf } from '../auth/tokens.ts'
import { canonicalNameOf } from '../middleware/addressing.ts'
import { awaited } from '../middleware/expect.ts'
import { CAPABILITY_PARAMETER, type Gate, type GateState } from '../middleware/gate.ts'
import { isDigestAlgorithm, parseDigest, tryParseDigest } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { type RepositoryName, tryParseName } from '../oci/name.ts'
import { parseContentRange } from '../oci/range.ts'
import type { Registry } from '../registry/registry.ts'
import type { UploadTarget } from '../registry/upload-refusals.ts'
import type { UploadBody } from '../registry/uploads.ts'
import { callerOf, clientGone, empty, nameOf, paramOf, queryValue, visibleTo } from './params.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Upload sessions: distribution-spec, "Pushing blobs". */
export function uploadRoutes(router: Router, registry: Registry, gate: Gate, authority: Authority | undefined): void {
  const start = async (ctx: Context): Promise<void> => await startUpload(ctx, registry, authority)
  router.post('/v2/*name/blobs/uploads/', gate.repository('push'), start)
  router.post('/v2/*name/blobs/uploads', gate.repository('push'), start)

  router.get('/v2/*name/blobs/uploads/:id', gate.upload, async ctx => {
    const target = targetOf(ctx)
    await present(ctx, target, await registry.uploadStatus(target), authority)
    empty(ctx, 204)
  })

  router.patch('/v2/*name/blobs/uploads/:id', gate.upload, async ctx => {
    const target = targetOf(ctx)
    await present(ctx, target, await registry.appendUpload(target, bodyOf(ctx)), authority)
    empty(ctx, 202)
  })

  router.put('/v2/*name/blobs/uploads/:id', gate.upload, async ctx => {
    const target = targetOf(ctx)
    const digest = parseDigest(queryValue(ctx, 'digest') ?? '')
    await registry.finishUpload(target, digest, hasBody(ctx) ? bodyOf(ctx) : undefined)
    created(ctx, target.name, digest)
  })

  router.delete('/v2/*name/blobs/uploads/:id', gate.upload, async ctx => {
    await registry.cancelUpload(targetOf(ctx))
    empty(ctx, 204)
  })
}

async function startUpload(ctx: Context, registry: Registry, authority: Authority | undefined): Promise<void> {
  const name = nameOf(ctx)
  const caller = callerOf(ctx)
  const mount = tryParseDigest(queryValue(ctx, 'mount') ?? '')
  if (mount !== undefined) {
    const asked = queryValue(ctx, 'from')
    const from = asked === undefined ? undefined : tryParseName(canonicalNameOf(ctx, asked))
    // A source that cannot exist, or that the caller may not pull, is no mount and no error: the client gets a session.
    const isSource = asked === undefined || (from !== undefined && (await mayPull(ctx, authority, from)))
    const visible = from === undefined ? await visibleTo(ctx, authority) : []
    if (isSource && (await registry.mountBlob({ name, digest: mount, from, visible }, caller))) {
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
    const algorithm = digest.startsWith('sha512:') ? 'sha512' : 'sha256'
    const id = await registry.startUpload(name, caller, algorithm, true)
    await registry.finishUpload({ name, id }, digest, bodyOf(ctx), true)
    created(ctx, name, digest)
    return
  }
  const target = { name, id: await registry.startUpload(name, caller, algorithm) }
  await present(ctx, target, 0, authority)
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
  const announced = ctx.get('Content-Length')
  const length = announced === '' ? undefined : Number(announced)
  if (header === '') return { stream: awaited(ctx.req), start: undefined, length, signal }
  const range = parseContentRange(header)
  const most = range.end - range.start + 1
  if (length !== undefined && length !== most) {
    throw new RegistryError('SIZE_INVALID', {
      detail: { contentRange: header, contentLength: announced },
    })
  }
  return { stream: awaited(ctx.req), start: range.start, length, most, signal }
}

/** Answers where the session goes on; with logins the Location carries the right to it, which outlives the token. */
async function present(
  ctx: Context,
  target: UploadTarget,
  offset: number,
  authority: Authority | undefined,
): Promise<void> {
  const capability = await capabilityFor(ctx, target, authority)
  ctx.set({
    Location: `/v2/${target.name}/blobs/uploads/${target.id}${capability}`,
    Range: `0-${Math.max(offset - 1, 0)}`,
    'Docker-Upload-UUID': target.id,
  })
}

/** The right to go on, anew in each answer: it holds for as long as a session that nobody writes to from now on. */
async function capabilityFor(ctx: Context, target: UploadTarget, authority: Authority | undefined): Promise<string> {
  if (authority === undefined) return ''
  const { access, upload } = ctx.state as GateState
  const capability = await authority.grantUpload(
    upload ?? { ...originOf(access?.identity), upload: target.id, repository: target.name },
  )
  return `?${CAPABILITY_PARAMETER}=${capability}`
}

/** What of an identity a capability is bound to. */
function originOf(identity: Partial<Identity> = {}): Omit<UploadCapability, 'upload' | 'repository'> {
  const { principalId, epoch, secretId, endsAt } = identity
  if (principalId === undefined || epoch === undefined) return {}
  return {
    principalId,
    epoch,
    ...(secretId === undefined ? {} : { secretId }),
    ...(endsAt === undefined ? {} : { endsAt: secondsOf(endsAt) }),
  }
}

/**
 * Whether the caller may pull from the source of a mount: what it may now decides, whatever its token is for, because the
 * token may mean a repository that was deleted since. Only an issuer that we trust says what its callers may.
 */
async function mayPull(ctx: Context, authority: Authority | undefined, name: RepositoryName): Promise<boolean> {
  const { access } = ctx.state as GateState
  if (authority === undefined || access === undefined) return true
  if (access.identity.kind === 'foreign') return access.may('pull', name)
  return await authority.allows(access.identity, 'pull', name)
}

function created(ctx: Context, name: RepositoryName, digest: string): void {
  ctx.set({ Location: `/v2/${name}/blobs/${digest}`, 'Docker-Content-Digest': digest })
  empty(ctx, 201)
}
