import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type Htpasswd, parseHtpasswd } from '../auth/htpasswd.ts'
import { insertAudit } from '../metadata/audit.ts'
import type { Database } from '../metadata/database.ts'
import {
  type MirroredUsers,
  addExternalUsers,
  lockExternalUsers,
  mirrorExternalUsers,
  namesTakenFrom,
} from '../metadata/external-users.ts'

/** What rows of users from an htpasswd file name as the one who vouches for them. */
export const HTPASSWD = 'htpasswd'

const RETRY_MS = 1_000

/** Told of what became of the users of a file. */
export interface HtpasswdObserver {
  /** The rows say what the file says. `taken`: names in it that belong to others here, who log in alone. */
  mirrored(changes: MirroredUsers & { readonly taken: readonly string[] }): void
  /** The index cannot be written now: said once, until it was. It is tried again. */
  delayed(error: unknown): void
}

/** What a row keeps of a hash of the file, to see that it changed. */
export function proofOfHash(hash: string): string {
  return createHash('sha256').update(hash).digest('hex')
}

/**
 * The users of an htpasswd file, and their rows: so that they can be granted something before they first log in, and that
 * a password which changed, or a user who is gone, ends every session in every process. All processes read one file; the
 * rows say what the one that read last found in it.
 */
export class HtpasswdUsers {
  readonly #db: Database
  readonly #observer: HtpasswdObserver
  readonly #retryMs: number
  readonly #closed = new AbortController()
  #file = parseHtpasswd('')
  /** Settles when the rows say what {@link #file} says; undefined while nobody is at it. */
  #written: Promise<void> | undefined
  #last: Promise<void> = Promise.resolve()
  #trying: Promise<void> = Promise.resolve()

  constructor(db: Database, observer: HtpasswdObserver, retryMs = RETRY_MS) {
    this.#db = db
    this.#observer = observer
    this.#retryMs = retryMs
  }

  /** What the file said when it was last read. */
  get file(): Htpasswd {
    return this.#file
  }

  /** Goes by another content from now on; {@link written} makes the rows follow. */
  take(file: Htpasswd): void {
    this.#file = file
    this.#written = undefined
  }

  /** Makes the rows say what the file says, unless they do. @throws what the index throws; a later call tries again. */
  async written(): Promise<void> {
    this.#written ??= this.#write(this.#file)
    await this.#written
  }

  /**
   * Adds the row of a user whose password was right for `hash`, where there is none. Not where the file says something else
   * by now: who was taken out of it must not come back.
   */
  async add(name: string, hash: string): Promise<void> {
    await this.#db.transaction(async tx => {
      await lockExternalUsers(tx, HTPASSWD)
      if (this.#file.hashes.get(name) !== hash) return
      await addExternalUsers(tx, HTPASSWD, new Map([[name, proofOfHash(hash)]]))
    })
  }

  /** Writes in the background, again and again until it is done. */
  keepWriting(): void {
    this.#trying = this.#trying.then(() => this.#try())
  }

  /** Ends what runs in the background. */
  async close(): Promise<void> {
    this.#closed.abort()
    await this.#trying
  }

  async #try(): Promise<void> {
    let isSaid = false
    while (!this.#closed.signal.aborted) {
      try {
        await this.written()
        return
      } catch (error) {
        if (!isSaid) this.#observer.delayed(error)
        isSaid = true
        await delay(this.#retryMs, undefined, { signal: this.#closed.signal, ref: false }).catch(() => undefined)
      }
    }
  }

  /** One content after the other: an older one must not be written over a newer one. */
  #write(file: Htpasswd): Promise<void> {
    const writing = this.#last.then(() => this.#mirror(file))
    this.#last = writing.catch(() => {
      if (this.#written === writing) this.#written = undefined
    })
    return writing
  }

  async #mirror({ hashes }: Htpasswd): Promise<void> {
    const proofs = new Map([...hashes].map(([name, hash]) => [name, proofOfHash(hash)]))
    const changes = await this.#db.transaction(async tx => {
      const found = await mirrorExternalUsers(tx, HTPASSWD, proofs)
      const entries = [
        ...found.added.map(user => ({ kind: 'user.create', detail: { user } })),
        ...found.changed.map(user => ({ kind: 'user.password', detail: { user } })),
        ...found.removed.map(user => ({ kind: 'user.disable', detail: { user } })),
      ].map(entry => ({ ...entry, outcome: 'ok' as const, actor: HTPASSWD }))
      if (entries.length > 0) await insertAudit(tx, entries)
      return found
    })
    this.#observer.mirrored({ ...changes, taken: await namesTakenFrom(this.#db, HTPASSWD, [...hashes.keys()]) })
  }
}
