import { Readable } from 'node:stream'
import type { Answer } from '../mirror/transport.ts'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import type { Digest } from '../oci/digest.ts'
import type { Remote } from './remote.ts'
import type { BlobOrigin, BlobPart } from './sides.ts'

/** Registries read what they were sent once more before they answer. */
const CLOSE_MS = 15 * 60_000
/** How often a blob is sent again from its start. */
const STARTS = 3

/** Which blob of which repository. */
interface Pushed {
  readonly repository: string
  readonly digest: Digest
}

/** A session at the other registry. */
interface Session {
  readonly at: URL
  /** Bytes that it holds. */
  readonly offset: number
}

/**
 * Pushes a blob: distribution-spec, "Pushing a blob in chunks", in one chunk. Where the connection breaks, the session is
 * asked how much it holds and goes on there; where it does not say, the blob is sent from its start. Answers its size.
 * @throws UpstreamFailure; what `open` throws.
 */
export async function pushBlob(
  remote: Remote,
  blob: Pushed,
  { open, onBytes }: Pick<BlobOrigin, 'open' | 'onBytes'>,
): Promise<number> {
  const { patience } = remote
  let session: Session | undefined
  let size = 0
  let isResumed = false
  let failures = 0
  for (let starts = 0; ;) {
    const before = session?.offset ?? 0
    try {
      if (session === undefined) {
        // A session that is gone may have been closed by the request whose answer was lost.
        if (starts > 0 && (await isThere(remote, blob))) return size
        starts += 1
        session = await patience.run(() => start(remote, blob))
      }
      const part = await open(session.offset)
      if (part.size === undefined) throw new Error('the size of the blob is not known')
      size = part.size
      if (session.offset < size) session = await send(remote, blob, session, { ...part, size }, onBytes)
      else part.body.destroy()
      await close(remote, blob, session)
      return size
    } catch (error) {
      remote.signal.throwIfAborted()
      if (!(error instanceof UpstreamFailure)) throw error
      // 404 and 416 are what a session answers that is gone, or is elsewhere than we think.
      const isPassing = error.kind === 'failed' || error.kind === 'limited' || isOfSession(error)
      // What was written before and after a break need not fit together, whatever the session said.
      const isSpoilt: boolean = isResumed && error.kind === 'refused' && !isPassing
      if (session === undefined || !(isPassing || isSpoilt)) throw error
      const lost: Session = session
      session = isSpoilt ? undefined : await statusOf(remote, blob, lost).catch(() => undefined)
      isResumed = session !== undefined
      remote.signal.throwIfAborted()
      failures = (session?.offset ?? 0) > before ? 0 : failures + 1
      if (failures > patience.retries || (session === undefined && starts >= STARTS)) throw error
      await patience.wait(failures)
    }
  }
}

/** Whether the other registry has a blob already. */
export async function isThere(remote: Remote, { repository, digest }: Pushed): Promise<boolean> {
  return (await remote.find((upstream, signal) => upstream.blobSize(repository, digest, signal))) !== undefined
}

function isOfSession({ kind, message }: UpstreamFailure): boolean {
  return kind === 'absent' || / answered 416\b/.test(message)
}

async function start({ upstream, signal }: Remote, { repository }: Pushed): Promise<Session> {
  const path = 'blobs/uploads/'
  const answer = await upstream.change('POST', repository, path, { signal })
  await answer.body.dump()
  return { at: upstream.location(answer, path, repository), offset: 0 }
}

/** Sends the rest of the blob in one request, at the pace of the slower side. */
async function send(
  { upstream, signal }: Remote,
  { repository }: Pushed,
  { at, offset }: Session,
  part: BlobPart & { readonly size: number },
  onBytes: (count: number) => void,
): Promise<Session> {
  const failed = Promise.withResolvers<never>()
  const body = Readable.from(counted(part.body, onBytes), { objectMode: false, highWaterMark: 2 ** 20 })
  failed.promise.catch(() => undefined)
  part.body.once('error', failed.reject)
  try {
    const sent = upstream.change('PATCH', repository, at, {
      headers: {
        'Content-Type': 'application/octet-stream',
        'Content-Length': String(part.size - offset),
        'Content-Range': `${offset}-${part.size - 1}`,
      },
      body,
      answerMs: CLOSE_MS,
      signal,
    })
    sent.catch(() => undefined)
    // What our own store fails with is no failure of the registry.
    const answer = await Promise.race([sent, failed.promise])
    await answer.body.dump()
    return { at: upstream.location(answer, at, repository), offset: part.size }
  } finally {
    body.destroy()
    part.body.destroy()
  }
}

async function* counted(body: Readable, onBytes: (count: number) => void): AsyncGenerator<Buffer, void> {
  for await (const chunk of body) {
    const bytes = chunk as Buffer
    yield bytes
    onBytes(bytes.byteLength)
  }
}

async function close({ upstream, signal }: Remote, { repository, digest }: Pushed, { at }: Session): Promise<void> {
  const url = new URL(at)
  url.searchParams.set('digest', digest)
  const answer = await upstream.change('PUT', repository, url, { answerMs: CLOSE_MS, signal })
  await answer.body.dump()
}

/** How much a session holds: distribution-spec, "Resuming an upload" (GET of its Location). */
async function statusOf(remote: Remote, { repository }: Pushed, { at }: Session): Promise<Session> {
  const { upstream, patience, signal } = remote
  return await patience.run(async () => {
    const answer: Answer = await upstream.change('GET', repository, at, { signal })
    await answer.body.dump()
    const end = Number(/^(?:bytes=)?0-(\d+)$/.exec(String(answer.headers['range'] ?? ''))?.[1] ?? 0)
    // 0-0 is what an empty session says; of one byte it is the same, and not worth a guess.
    const offset = end === 0 ? 0 : end + 1
    return { at: answer.headers['location'] === undefined ? at : upstream.location(answer, at, repository), offset }
  })
}
