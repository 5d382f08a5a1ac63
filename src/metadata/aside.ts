/** Tables that say nothing of what is in the registry, and from which no row of another is removed along. */
const ASIDE = new Set([
  'access_token',
  'audit',
  'event',
  'maintenance',
  'manifest_pull',
  'pull_counting',
  'refresh_token',
  'sync_upload',
  'tag_history',
  'tag_pull',
  'token_secret',
  'trash',
  'upload',
  'usage_delta',
  'used_jti',
])
/** `for update` locks, and `do update` is the end of an insert. */
const WRITE = /(?<!\b(?:do|for|key)\s+)\bupdate\s+(\w+)|\binsert\s+into\s+(\w+)|\bdelete\s+from\s+(\w+)/gi
const OTHER = /\b(?:merge|truncate|copy|alter|create|drop|call)\b/i
const MOST_TEXTS = 1_000

const known = new Map<string, boolean>()

/**
 * Whether a statement of ours writes nothing but what stands aside: counts of pulls, the audit, uploads under way. Where in
 * doubt it does not.
 */
export function isAside(text: string): boolean {
  const before = known.get(text)
  if (before !== undefined) return before
  const tables = [...text.matchAll(WRITE)].map(match => match[1] ?? match[2] ?? match[3] ?? '')
  const aside = !OTHER.test(text) && tables.every(table => ASIDE.has(table.toLowerCase()))
  if (known.size < MOST_TEXTS) known.set(text, aside)
  return aside
}
