import { createHash } from 'node:crypto'
import type { Database } from '../metadata/database.ts'
import { type StoredBlob, nextBlobs, quarantineBlob, releaseBlob } from '../metadata/verification.ts'
import { algorithmOf } from '../oci/digest.ts'
import { BlobMissing, type StorageKey } from '../storage/blob-store.ts'
import type { Stores } from '../storage/stores.ts'
import type { Turn } from './work.ts'

/** What a verification found so far. */
export interface VerificationProgress {
  readonly blobs: number
  readonly bytes: number
  /** Blobs whose bytes are others than their digest says. */
  readonly damaged: number
  /** Blobs whose bytes are not there. */
  readonly missing: number
  /** Blobs that had been found damaged and are sound. */
  readonly recovered: number
}

/** What was found about one blob. */
export type Verdict = 'sound' | 'damaged' | 'missing'

/** What a verification works with. */
export interface Verifier {
  readonly db: Database
  readonly stores: Stores
  /** Bytes read in a second at most. */
  readonly bytesPerSecond: number
  readonly signal: AbortSignal
  /** Waits; ends by an error when `signal` fires. */
  readonly delay: (ms: number) => Promise<void>
  /** Told of every blob. `recovered`: it had been found damaged before. */
  readonly onVerdict: (blob: StoredBlob, verdict: Verdict, recovered: boolean) => void
}

const BATCH = 100
/** How often a long reading says that it lives. */
const SAVE_MS = 10_000
/** Where this many in a row are missing, it is the store that is not there: a volume that was not mounted, another bucket. */
const MISSING_IN_A_ROW = 20

const NOTHING: VerificationProgress = { blobs: 0, bytes: 0, damaged: 0, missing: 0, recovered: 0 }

/**
 * Reads every blob of the stores again and compares it with its digest, from where the run was. One that is damaged or
 * missing is taken out of sight, so that the next push of it repairs it for every repository that has it; one that had
 * been and is sound is shown again. Bytes are read twice before they are condemned.
 * @throws StoreUnavailable when the store fails; an Error where it looks like another store than the one that was written.
 */
export async function verifyBlobs(verifier: Verifier, turn: Turn<number, VerificationProgress>): Promise<boolean> {
  const { db, stores } = verifier
  // Up to `settled` everything is decided; between it and `position` lie blobs that seem to be missing.
  let settled = turn.cursor ?? 0
  let position = settled
  let done = turn.progress ?? NOTHING
  let missing: StoredBlob[] = []
  const throttle = createThrottle(verifier)
  let savedAt = performance.now()
  const onBytes = async (count: number): Promise<void> => {
    done = { ...done, bytes: done.bytes + count }
    await throttle(count)
    if (performance.now() - savedAt < SAVE_MS) return
    savedAt = performance.now()
    await turn.save(settled, done)
  }
  const condemn = async (blob: StoredBlob, verdict: Exclude<Verdict, 'sound'>): Promise<void> => {
    if (!(await db.transaction(tx => quarantineBlob(tx, blob)))) return
    done = { ...done, [verdict]: done[verdict] + 1 }
    verifier.onVerdict(blob, verdict, false)
  }
  const settle = async (): Promise<void> => {
    for (const blob of missing) await condemn(blob, 'missing')
    missing = []
    settled = position
  }
  const suspect = (): Error =>
    new Error(`${missing.length} blobs in a row are not in the store: is it the right one, and is it mounted?`)
  for (;;) {
    for (const store of stores.all) await store.check()
    const blobs = await nextBlobs(db, stores.names, position, BATCH)
    for (const blob of blobs) {
      verifier.signal.throwIfAborted()
      const verdict = await judge(verifier, blob, onBytes)
      done = { ...done, blobs: done.blobs + 1 }
      if (verdict === 'missing') {
        position = blob.id
        if (!blob.damaged) missing.push(blob)
        if (missing.length >= MISSING_IN_A_ROW) throw suspect()
        continue
      }
      await settle()
      if (verdict === 'damaged') await condemn(blob, 'damaged')
      else {
        const recovered = blob.damaged && (await db.transaction(tx => releaseBlob(tx, blob)))
        if (recovered) done = { ...done, recovered: done.recovered + 1 }
        verifier.onVerdict(blob, 'sound', recovered)
      }
      position = settled = blob.id
    }
    if (blobs.length < BATCH) break
    await turn.save(settled, done)
  }
  if (missing.length > 1 && missing.length === done.blobs) throw suspect()
  await settle()
  await turn.save(settled, done)
  return true
}

async function judge(
  verifier: Verifier,
  blob: StoredBlob,
  onBytes: (count: number) => Promise<void>,
): Promise<Verdict> {
  const first = await read(verifier, blob, onBytes)
  return first === 'damaged' ? await read(verifier, blob, onBytes) : first
}

async function read(
  { stores, signal }: Verifier,
  blob: StoredBlob,
  onBytes: (count: number) => Promise<void>,
): Promise<Verdict> {
  const algorithm = algorithmOf(blob.digest)
  const hash = createHash(algorithm)
  try {
    for await (const bytes of stores.of(blob.store).read(blob.storage_key as StorageKey, signal)) {
      hash.update(bytes)
      await onBytes(bytes.byteLength)
    }
  } catch (error) {
    if (error instanceof BlobMissing) return 'missing'
    throw error
  }
  return `${algorithm}:${hash.digest('hex')}` === blob.digest ? 'sound' : 'damaged'
}

/** Holds the bytes of a second to a number, without letting a pause save up for a burst. */
function createThrottle({ bytesPerSecond, delay }: Verifier): (bytes: number) => Promise<void> {
  let allowedAt = performance.now()
  return async bytes => {
    const now = performance.now()
    allowedAt = Math.max(allowedAt, now) + (bytes / bytesPerSecond) * 1000
    // Timers are too coarse for less.
    if (allowedAt - now > 20) await delay(allowedAt - now)
  }
}
