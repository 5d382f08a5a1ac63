import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { findSyncUpload, putSyncUpload } from '../metadata/sync-items.ts'
import { retryAfterMs } from '../mirror/health.ts'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import { type Digest, algorithmOf } from '../oci/digest.ts'
import { RegistryError } from '../oci/errors.ts'
import { type RepositoryName, parseName } from '../oci/name.ts'
import type { Caller, VisibleNames } from '../registry/context.ts'
import type { LocalTargetContext } from './local-context.ts'
import { readResumed } from './resumed.ts'
import type { BlobOrigin } from './sides.ts'

/** Which blob goes into which repository. */
interface Pulled {
  readonly name: RepositoryName
  readonly digest: Digest
  readonly caller: Caller
}

/** How often the registry is asked again that is busy with the session. */
const CLOSES = 120
const BUSY_MS = 5_000

/**
 * Makes sure that a blob is here. What is here already, or in a sibling, is not fetched; what has come in part, also to a
 * process that died, is gone on with. The digest is checked. Answers the bytes that were fetched, undefined where none.
 * @throws UpstreamFailure, RegistryError
 */
export async function pullBlob(
  context: LocalTargetContext,
  blob: Pulled,
  from: BlobOrigin,
): Promise<number | undefined> {
  if (await isHere(context, blob, from.home)) return undefined
  let fetched = 0
  let isFresh = false
  for (let closes = 0; ;) {
    const session = await sessionOf(context, blob)
    if (session.offset === 0) isFresh = true
    try {
      fetched += await fill(context, blob, session, from)
      return fetched
    } catch (error) {
      context.signal.throwIfAborted()
      if (!(error instanceof RegistryError)) throw error
      if ((error.code === 'UNAVAILABLE' || error.code === 'RANGE_INVALID') && closes < CLOSES) {
        // It is being closed, or a writer that is dead still counts as alive, or wrote more than it had told of.
        closes += 1
        const ms = retryAfterMs(error.headers['Retry-After']) ?? BUSY_MS
        await delay(ms, undefined, { signal: context.signal })
        if (await isStored(context, blob)) return fetched
        continue
      }
      await context.registry.cancelUpload({ name: blob.name, id: session.id }).catch(() => undefined)
      // What somebody left behind need not be the beginning of this.
      if (error.code !== 'DIGEST_INVALID' || isFresh) throw error
    }
  }
}

/** Whether it is in the repository, also by a link to what lies in another: that of this run, or a sibling. */
async function isHere(
  { registry, siblings }: LocalTargetContext,
  blob: Pulled,
  home: string | undefined,
): Promise<boolean> {
  if (await isStored({ registry }, blob)) return true
  const { name, digest, caller } = blob
  const mount = async (from: RepositoryName | undefined, visible: VisibleNames): Promise<boolean> =>
    await registry.mountBlob({ name, digest, from, visible }, caller)
  if (home !== undefined && (await mount(parseName(home), []))) return true
  return siblings !== undefined && (await mount(undefined, [[siblings]]))
}

async function isStored({ registry }: Pick<LocalTargetContext, 'registry'>, blob: Pulled): Promise<boolean> {
  try {
    await registry.statBlob(blob.name, blob.digest, blob.caller)
    return true
  } catch (error) {
    if (error instanceof RegistryError && error.code === 'BLOB_UNKNOWN') return false
    throw error
  }
}

interface Session {
  readonly id: string
  /** Bytes that it holds. */
  readonly offset: number
}

/** The session that a process before left, or a new one. */
async function sessionOf({ registry, db }: LocalTargetContext, { name, digest, caller }: Pulled): Promise<Session> {
  const known = await findSyncUpload(db, name, digest)
  if (known !== undefined) {
    try {
      return { id: known, offset: await registry.uploadStatus({ name, id: known }) }
    } catch (error) {
      if (!(error instanceof RegistryError) || error.code !== 'BLOB_UPLOAD_UNKNOWN') throw error
    }
  }
  const id = await registry.startUpload(name, caller, algorithmOf(digest))
  await db.transaction(tx => putSyncUpload(tx, name, digest, id))
  return { id, offset: 0 }
}

/** Fetches what a session lacks, and closes it. Answers how many bytes that was. */
async function fill(
  { registry, patience, signal }: LocalTargetContext,
  { name, digest }: Pulled,
  { id, offset }: Session,
  { open, onBytes }: BlobOrigin,
): Promise<number> {
  const { bytes, size } = await readResumed(open, offset, patience)
  let count = 0
  let failure: { readonly error: unknown } | undefined
  const watched = async function* (): AsyncGenerator<Buffer, void> {
    try {
      for await (const chunk of bytes) {
        count += chunk.byteLength
        onBytes(chunk.byteLength)
        yield chunk
      }
    } catch (error) {
      failure = { error }
      throw error
    }
  }
  const stream = Readable.from(watched(), { objectMode: false, highWaterMark: 2 ** 20 })
  const length = size === undefined ? undefined : size - offset
  try {
    if (length === 0) {
      await registry.finishUpload({ name, id }, digest, undefined)
    } else {
      await registry.finishUpload({ name, id }, digest, { stream, start: offset, length, signal })
    }
    return count
  } catch (error) {
    signal.throwIfAborted()
    if (failure?.error instanceof UpstreamFailure) throw failure.error
    throw error
  } finally {
    stream.destroy()
    await bytes.return()
  }
}
