/** Rows as the drivers give them: bigint columns are `number` (all of ours are below 2^53), bytea `Uint8Array`, timestamptz `Date`, json parsed. */
export type Row = Record<string, unknown>

/** Something that runs one statement. `$1` parameters; `name` makes it a prepared statement where the driver has them. */
export interface Queryable {
  query<R extends object = Row>(text: string, values?: readonly unknown[]): Promise<readonly R[]>
}

declare const inTransaction: unique symbol
/** The right to write: functions that change rows demand it, so that a write outside a transaction does not compile. */
export interface Transaction extends Queryable {
  readonly [inTransaction]: true
  /** Runs a text of several statements without parameters; migrations are such texts. */
  script(text: string): Promise<void>
}

/** The index. Two drivers: `postgres.ts` and `embedded.ts`; one dialect. */
export interface Database extends Queryable {
  readonly driver: 'postgres' | 'embedded'
  /**
   * Runs `work` in one READ COMMITTED transaction and commits. 40001 and 40P01 are retried here and nowhere else, so
   * `work` may run several times and holds nothing but SQL. Other errors roll back and are thrown on.
   * @throws DatabaseUnavailable when the server cannot be reached or does not answer in time.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T>
  /**
   * Counts what was committed, but for what stands aside (see `aside.ts`), where this process is the only one that writes:
   * what was read stands for as long as this number does, and it changes before a commit can be seen. Undefined where
   * others write too.
   */
  changes(): number | undefined
  /** How busy it is now: connections open, those at work, and callers that wait for one. */
  load(): { readonly open: number; readonly busy: number; readonly waiting: number }
  close(): Promise<void>
}

/** The index cannot be reached or does not answer in time; a later try may succeed. After an error at COMMIT the outcome is unknown. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
}

/** The index is there but this program cannot use it; the message says why and what to do. A later try is no better. */
export class IndexUnusable extends Error {
  override readonly name = 'IndexUnusable'
}

/** The SQLSTATE of an error of either driver, or undefined. */
export function sqlState(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' && /^[0-9A-Z]{5}$/.test(error.code) ? error.code : undefined
}

/** What a transaction relied on changed under it; {@link Database.transaction} runs it again as it does for 40001. */
export class LostRace extends Error {
  override readonly name = 'LostRace'
  readonly code = '40001'
}
