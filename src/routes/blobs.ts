import type Router from '@koa/router'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Context } from 'koa'
import { parseDigest } from '../oci/digest.ts'
import { noneMatches, rangeStands } from '../oci/precondition.ts'
import { type WantedRange, multipartParts, parseRange } from '../oci/range.ts'
import type { BlobInfo } from '../registry/blobs.ts'
import type { Registry } from '../registry/registry.ts'
import type { Gate } from '../middleware/gate.ts'
import { callerOf, clientGone, empty, nameOf, paramOf } from './params.ts'

const CONTENT_TYPE = 'application/octet-stream'

/** Blobs: distribution-spec, "Pulling blobs" and "Deleting Blobs"; ranges by RFC 9110 section 14. */
export function blobRoutes(router: Router, registry: Registry, gate: Gate): void {
  router.get('/v2/*name/blobs/:digest', gate.repository('pull'), async ctx => {
    const digest = parseDigest(paramOf(ctx, 'digest'))
    const isKnown = noneMatches(ctx.get('If-None-Match'), digest)
    const looks = isKnown || ctx.method === 'HEAD'
    const blob = await registry.statBlob(nameOf(ctx), digest, callerOf(ctx), { looks })
    ctx.status = 200
    ctx.set({
      'Content-Type': CONTENT_TYPE,
      'Content-Length': String(blob.size),
      'Docker-Content-Digest': digest,
      'Accept-Ranges': 'bytes',
      ETag: `"${digest}"`,
      'Cache-Control': 'private, max-age=31536000, immutable',
    })
    if (isKnown) {
      ctx.remove('Content-Length')
      ctx.remove('Content-Type')
      empty(ctx, 304)
    } else if (ctx.method === 'HEAD') {
      ctx.respond = false
      ctx.res.end()
    } else {
      const wanted = rangeStands(ctx.get('If-Range'), digest) ? ctx.get('Range') || undefined : undefined
      await sendBlob(ctx, registry, blob, parseRange(wanted, blob.size))
    }
  })

  router.delete('/v2/*name/blobs/:digest', gate.repository('delete'), async ctx => {
    await registry.deleteBlob(nameOf(ctx), parseDigest(paramOf(ctx, 'digest')), callerOf(ctx))
    empty(ctx, 202)
  })
}

/** Sends the client to the store; the range it asked for goes with it. What is allowed now need not be later: no caching. */
function redirect(ctx: Context, url: URL): void {
  ctx.set({ Location: url.href, 'Cache-Control': 'no-store' })
  ctx.remove('Accept-Ranges')
  ctx.remove('ETag')
  empty(ctx, 307)
}

/** Whether the store would answer the same to the same headers: it knows neither several ranges nor our entity tags. */
function mayRedirect(ctx: Context, wanted: WantedRange): boolean {
  return ctx.get('If-Range') === '' && (wanted.kind === 'single' || ctx.get('Range') === '')
}

/** The bytes go straight to the socket; Koa only sees that it need not respond. */
async function sendBlob(ctx: Context, registry: Registry, blob: BlobInfo, wanted: WantedRange): Promise<void> {
  const url = mayRedirect(ctx, wanted) ? await registry.redirectBlob(blob, CONTENT_TYPE) : undefined
  if (url !== undefined) {
    redirect(ctx, url)
    return
  }
  const gone = clientGone(ctx)
  ctx.respond = false
  if (wanted.kind === 'multi') {
    const boundary = randomBytes(16).toString('hex')
    const parts = multipartParts(wanted.ranges, blob.size, CONTENT_TYPE, boundary)
    ctx.status = 206
    ctx.set({
      'Content-Type': `multipart/byteranges; boundary=${boundary}`,
      'Content-Length': String(parts.length),
    })
    for (const [index, range] of wanted.ranges.entries()) {
      const head = parts.heads[index]
      if (head !== undefined && !ctx.res.write(head)) await once(ctx.res, 'drain', { signal: gone })
      await registry.sendBlob(blob, range, ctx.res, gone)
    }
    ctx.res.end(parts.tail)
    return
  }
  if (wanted.kind === 'single') {
    const { start, end } = wanted.range
    ctx.status = 206
    ctx.set({
      'Content-Range': `bytes ${start}-${end}/${blob.size}`,
      'Content-Length': String(end - start + 1),
    })
  }
  // Asked for by its length, so that a file that lost its end is an error here and no body that never ends there.
  const whole = blob.size === 0 ? undefined : { start: 0, end: blob.size - 1 }
  await registry.sendBlob(blob, wanted.kind === 'single' ? wanted.range : whole, ctx.res, gone)
  ctx.res.end()
}
