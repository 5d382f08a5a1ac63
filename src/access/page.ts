/** A page of a list. */
export interface Page<T> {
  readonly items: readonly T[]
  /** The key of the last entry that was looked at, where more follow. A page may be short, or empty, before the end. */
  readonly next?: string
}

/** What of a list is asked for. */
export interface PageRequest {
  /** Entries after this key; all where it is empty. */
  readonly last: string
  readonly limit: number
}

/**
 * The page that rows make, of which one more than `limit` was read. Rows that `keep` refuses are left out; the work of a
 * page stays proportional to its limit all the same.
 */
export function pageOf<R, T>(
  rows: readonly R[],
  limit: number,
  how: { readonly key: (row: R) => string; readonly present: (row: R) => T; readonly keep?: (row: R) => boolean },
): Page<T> {
  const { key, present, keep = () => true } = how
  const read = rows.slice(0, limit)
  const items = read.filter(keep).map(present)
  const end = read.at(-1)
  return rows.length > limit && end !== undefined ? { items, next: key(end) } : { items }
}

/** The id that a key or parameter writes, or undefined for what writes none. */
export function idOf(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
