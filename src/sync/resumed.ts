import { discard } from '../mirror/bodies.ts'
import { UpstreamFailure } from '../mirror/upstream-failure.ts'
import type { Patience } from './patience.ts'
import type { BlobPart } from './sides.ts'

/** A blob that is read from a byte on. */
export interface ResumedRead {
  /** Where it began. */
  readonly start: number
  /** Bytes of the whole, where the source says. */
  readonly size: number | undefined
  /** The bytes from `start` to the end. */
  readonly bytes: AsyncGenerator<Buffer, void>
}

/**
 * Reads a blob from byte `start` on, and goes on where a transfer breaks off (RFC 9110 section 14), as often as there is
 * progress. The source has answered when this resolves. @throws UpstreamFailure
 */
export async function readResumed(
  open: (start: number) => Promise<BlobPart>,
  start: number,
  patience: Patience,
): Promise<ResumedRead> {
  const first = await openFrom(open, start)
  return { start, size: first.size, bytes: follow(open, start, first, patience) }
}

async function* follow(
  open: (start: number) => Promise<BlobPart>,
  start: number,
  first: BlobPart,
  patience: Patience,
): AsyncGenerator<Buffer, void> {
  const { size } = first
  let part: BlobPart | undefined = first
  let at = start
  for (let failures = 0; ;) {
    const before = at
    try {
      part ??= await openFrom(open, at)
      if (part.size !== size) throw new UpstreamFailure('refused', 'the blob changed its size')
      for await (const bytes of restOf(part, at)) {
        at += bytes.byteLength
        if (size !== undefined && at > size) throw new UpstreamFailure('refused', 'the blob is longer than was said')
        yield bytes
      }
      if (size === undefined || at === size) return
      throw new UpstreamFailure('failed', 'the blob ended before its end')
    } catch (error) {
      const isPassing = !(error instanceof UpstreamFailure) || error.kind === 'failed' || error.kind === 'limited'
      failures = at > before ? 0 : failures + 1
      if (!isPassing || failures > patience.retries) throw asFailure(error)
      await patience.wait(failures)
    } finally {
      if (part !== undefined) discard(part.body)
      part = undefined
    }
  }
}

function asFailure(error: unknown): UpstreamFailure {
  if (error instanceof UpstreamFailure) return error
  return new UpstreamFailure('failed', `the blob broke off: ${String(error)}`, { cause: error })
}

/** Of a part that begins before `at`, the rest. */
async function* restOf({ body, start }: BlobPart, at: number): AsyncGenerator<Buffer, void> {
  let skip = at - start
  for await (const chunk of body) {
    const bytes = chunk as Buffer
    const rest = bytes.subarray(Math.min(skip, bytes.byteLength))
    skip -= bytes.byteLength - rest.byteLength
    if (rest.byteLength > 0) yield rest
  }
}

/** Some registries know the whole of a blob only. */
async function openFrom(open: (start: number) => Promise<BlobPart>, at: number): Promise<BlobPart> {
  try {
    const part = await open(at)
    if (part.start <= at) return part
    discard(part.body)
  } catch (error) {
    if (at === 0 || !(error instanceof UpstreamFailure) || error.kind !== 'refused') throw error
  }
  return await open(0)
}
